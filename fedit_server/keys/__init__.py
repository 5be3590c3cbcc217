"""The server's secrets: what signs, what TLS shows, how they rotate, and the answers of the key log."""
