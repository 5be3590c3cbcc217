"""A global adapter in the forms that other programs load. No torch here: numpy, and the `gguf` package where needed."""
