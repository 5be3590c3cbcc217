"""The local page (`fedit-client ui`): state, rounds, adapters, outbox, a chat, pause and finish; on loopback only."""
