"""Settings that came with a later minor: tasks without them keep their bytes, tasks with them need that minor."""

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.ids import Digest
from fedit_protocol.round_plan import NEW_SETTINGS, version_of
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import small_task

VALUES = {
    ("adapter", "start"): Digest(f"sha256:{0:064x}"),
    ("training", "evaluate_every"): 5,
    ("training", "proximal"): 0.1,
    ("encoding", "packed"): True,
}


def stating(section: str, key: str) -> TaskDocument:
    document = small_task()
    part = getattr(document.task, section).model_copy(update={key: VALUES[section, key]})
    return document.model_copy(update={"task": document.task.model_copy(update={section: part})})


@pytest.mark.parametrize(("section", "key"), NEW_SETTINGS)
def test_a_new_setting_needs_its_minor(section: str, key: str) -> None:
    assert version_of(small_task()) == (2, 0)
    assert version_of(stating(section, key)) == (2, 2)


@pytest.mark.parametrize(("section", "key"), NEW_SETTINGS)
def test_a_setting_at_its_default_is_not_in_the_bytes(section: str, key: str) -> None:
    assert key.encode() not in encode(small_task())
    assert key.encode() in encode(stating(section, key))
