"""What operators put around a server, as texts: a unit of systemd, a container file, a dashboard, alert rules."""
