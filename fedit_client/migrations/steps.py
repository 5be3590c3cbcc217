"""The steps from each format of a home folder to the next one (`format`)."""

from collections.abc import Mapping
from typing import Final

from fedit_client.consent.agreements import Agreements
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.migrations.format import Step, bring_up_to_date


def open_home(paths: Paths) -> list[int]:
    """Bring a home up to date before anything is written to it; return the formats that were reached.

    Raises StorageError S016 for a home of a newer client, S013 for damaged files.
    """
    return bring_up_to_date(paths, STEPS)


def _keep_the_consent(paths: Paths) -> None:
    """1 → 2: what the membership says was agreed to becomes the first file of `consents`."""
    membership = load_membership(paths.membership_file)
    if membership is None:
        return
    agreements = Agreements(paths.consents)
    if agreements.of(membership) is None:
        agreements.keep_earlier(membership)


STEPS: Final[Mapping[int, Step]] = {1: _keep_the_consent}
