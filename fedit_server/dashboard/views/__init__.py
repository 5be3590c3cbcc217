"""What each page shows, as frozen models: the page is drawn from one, and its `.json` twin is the same one."""
