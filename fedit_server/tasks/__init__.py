"""Tasks: from a file to a published document with its base model's digest and an adapter's first version."""
