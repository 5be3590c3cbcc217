"""Which version of FedIT is installed here."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version of the installed distribution, at most 32 characters."""
    try:
        return version("fedit")[:32]
    except PackageNotFoundError:
        return "0+unknown"
