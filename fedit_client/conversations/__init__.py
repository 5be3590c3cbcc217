"""What a command does, between the words on the command line and the SDK: it asks, explains, and shows."""
