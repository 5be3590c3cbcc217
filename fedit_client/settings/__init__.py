"""Settings on the command line: where each came from, which of two is stricter, and how one is said back in words."""
