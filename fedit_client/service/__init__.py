"""A client that starts when its owner logs in: systemd, launchd, Windows' Task Scheduler. All without privileges."""
