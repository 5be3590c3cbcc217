"""Secure aggregation: the two machines of a round and what they are made of (SPEC, sections 5 to 8)."""
