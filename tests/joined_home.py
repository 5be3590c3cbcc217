"""The home folder of a device that has joined a task and holds some versions of its adapter; no server, no torch."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedit_client.adapters.editions import file_digest, write_edition
from fedit_client.adapters.kept import TENSORS
from fedit_client.config import ClientConfig, load_config
from fedit_client.membership.joined import Membership
from fedit_client.membership.trust import PinnedBy
from fedit_protocol.encoding import encode
from fedit_protocol.peft_folder import CONFIG, Edition, config_bytes
from fedit_protocol.testing import MemoryFederation


def joined_home(home: Path, document: Any, adapters: Mapping[int, Path], **membership: Any) -> ClientConfig:
    """Write membership and adapter versions under `home`, and return its settings."""
    config = load_config(home)
    facts: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 1,
        "pinned_by": PinnedBy.INVITE,
        "descriptor": encode(MemoryFederation(3).descriptor),
        "certificate": b"",
        "log_head": b"",
        "label": "",
        "consent": document.task.label,
        "document": encode(document),
        "device": "cpu",
        "threads": 1,
        "joined_at": 0,
        **membership,
    }
    Membership(**facts).save(config.paths.membership_file)
    for version, file in adapters.items():
        folder = config.paths.adapters / document.task.id / str(version)
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / TENSORS)
        (folder / CONFIG).write_bytes(config_bytes(document.task))
        write_edition(folder, document.task, Edition(version, file_digest(file), round_no=version, survivors=3))
    return config
