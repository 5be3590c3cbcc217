"""A task's base model on this machine: where its files come from, and how they are held against the pinned digest."""
