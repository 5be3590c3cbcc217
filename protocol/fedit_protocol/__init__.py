"""What a client and a server must agree on: messages, keys, masks, the adapter's bytes. No I/O, no clock."""
