"""Becoming a member, staying one, and leaving: identity, invitation, certificate, the server's key, the key log."""
