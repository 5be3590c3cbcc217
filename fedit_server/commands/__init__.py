"""`fedit-server`: one file per group of commands. They parse, call and print."""
