"""What this device keeps of what it did: every upload in readable form, a signed history, hosts, and times."""
