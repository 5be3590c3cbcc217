"""Pages over the store: tasks, rounds and aggregates for the operator's eyes, never one device's figures."""
