"""`python -m fedit_client` is `fedit-client`."""

from fedit_client.cli import main

if __name__ == "__main__":
    main()
