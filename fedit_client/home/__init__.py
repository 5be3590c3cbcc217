"""The folders of this program: where they lie, who holds them, and files that survive a crash."""
