"""What stands in a server's way, looked at from beside it; and what helps to find a bug. Reads only, sends nothing."""
