"""What an operator looks up and changes, whoever asks: the commands beside the server, or a request."""
