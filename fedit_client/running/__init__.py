"""A client that runs: in the foreground or as a service, how it is steered, and what it says about itself."""
