"""The global adapters on this device, and what is known of each."""
