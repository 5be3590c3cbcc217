"""`python -m fedit_server` is `fedit-server`."""

from fedit_server.cli import main

if __name__ == "__main__":
    main()
