"""The data folder: what lies where, who holds it, and files that survive a power cut."""
