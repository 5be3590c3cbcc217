"""The format of a home folder, and the steps that bring an older one up to date."""
