"""Trusted rounds: every update sealed to a key of one round, which the server holds (SPEC, section 15; ADR 0022).

Weaker than `secagg` by design: the server sees each update. It imports nothing that makes masks.
"""
