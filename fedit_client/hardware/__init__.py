"""What this machine can do: its devices, what a task will need here, and the environment that trains. No torch."""
