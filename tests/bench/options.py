"""Options of the benches. Nothing is imported here that another bench would wait for."""

import argparse


def parser() -> argparse.ArgumentParser:
    """Options that belong to one bench each."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--cuda", action="store_true", help="training: a 7B of random weights on the GPU")
    made.add_argument("--data", default="", help="training: a file of rows instead of Dolly")
    made.add_argument("--trl", default="", help="training: a folder with the package trl, if it is not installed")
    made.add_argument("--rounds", type=int, default=1, help="training: how often each peer runs")
    made.add_argument("--seconds", type=float, default=330.0, help="training --cuda: no part begins after this")
    made.add_argument("--part-seconds", type=float, default=0.0, help="training: a part is stopped after this")
    made.add_argument("--out", default="", help="training: a file that gets each part's figures as they come")
    made.add_argument("--devices", type=int, default=10_000, help="server: devices that wait at it")
    made.add_argument("--lasts", type=float, default=300.0, help="server: seconds of that load, after a minute's ramp")
    made.add_argument("--only", default="", help="methods: these parts alone, NAME,NAME")
    return made
