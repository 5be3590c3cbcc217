"""The commands of `fedit-client`, one file per group: parse, call the SDK, print. Nothing is decided here."""
