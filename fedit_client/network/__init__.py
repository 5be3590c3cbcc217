"""Bytes over the line: requests, limits, proxies, and what came back instead of an answer."""
