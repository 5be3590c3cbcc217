"""Being a good guest: when this machine may train, and why not. Nothing is imported here."""
