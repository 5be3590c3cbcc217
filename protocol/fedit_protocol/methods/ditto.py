"""Ditto: the adapter of everybody, and beside it one of each device's own that stays near it (Li et al. 2021)."""

from fedit_protocol.methods.fedavg import FedAvg


class Ditto(FedAvg):
    """Average as FedIT does. The personal adapter is trained after the shared one, and never leaves the device."""
