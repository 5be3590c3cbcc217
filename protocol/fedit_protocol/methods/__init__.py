"""From aggregates to the next global adapter: one file per method, pure numpy, linear in the clients' messages."""
