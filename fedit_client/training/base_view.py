"""What the libraries see of a base model: a folder of links to the pinned files, and nothing that lies beside them.

They read more names than a digest covers, some by themselves: further chat templates, adapters, pickles, code.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedit_client.base.check import check_base
from fedit_protocol.errors import ModelError


@contextmanager
def pinned_view(base: Path) -> Iterator[Path]:
    """Yield such a folder for the time of loading; raises ModelError like `check_base`, M003 if no link can be made."""
    names = check_base(base)
    with tempfile.TemporaryDirectory(prefix="fedit-base-") as name:
        view = Path(name)
        for file in names:
            _link((base / file).resolve(), view / file)
        yield view


def _link(source: Path, target: Path) -> None:
    """A symbolic link, or a hard one where the system keeps those for administrators."""
    try:
        target.symlink_to(source)
    except OSError:
        try:
            os.link(source, target)
        except OSError as error:
            raise ModelError(
                f"no link to the base's files can be made: {error.strerror}",
                code="M003",
                where=str(target.parent),
                fix="set TMPDIR to a folder on the disk that the base lies on",
            ) from error
