"""A version whose adapter is built from less: fetched as it travels, kept as PEFT loads it, known by what travelled."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from fedit_client.adapters.editions import edition_in
from fedit_client.adapters.kept import TENSORS, AdapterShelf, start_of, travelled
from fedit_client.conversations.pulling import pulled
from fedit_client.network.patience import Patience
from fedit_client.testing import LoopbackServer, LoopbackTransport, read_adapter
from fedit_protocol.built_adapter import built_adapter
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ModelError
from fedit_protocol.peft_folder import FACTORS
from fedit_protocol.testing import MemoryFederation

from ..protocol.built import document

DOCUMENT = document("fed_sb")
TASK = DOCUMENT.task


def shop(folder: Path) -> tuple[LoopbackServer, LoopbackTransport, AdapterShelf]:
    federation = MemoryFederation(3)
    server = LoopbackServer(federation, DOCUMENT)
    return server, server.transport(federation.devices[0].public), AdapterShelf(folder, DOCUMENT)


async def pull(folder: Path) -> tuple[LoopbackServer, Path]:
    server, transport, shelf = shop(folder)
    patience = Patience(lambda _: None, server.clock, max_wait_s=0.01)
    kept = await pulled(transport, shelf, patience, TASK.id, None, lambda _done, _of: None)
    return server, kept.folder


async def test_the_folder_has_what_travelled_and_what_peft_loads(tmp_path: Path) -> None:
    server, folder = await pull(tmp_path)
    assert (travelled(folder).name, start_of(folder, DOCUMENT).name) == (FACTORS, TENSORS)
    assert np.array_equal(read_adapter(DOCUMENT, folder), server.adapter)
    built = DOCUMENT.built.flatten(load_file(folder / TENSORS))
    assert np.array_equal(built, built_adapter(DOCUMENT, server.adapter))
    assert edition_in(folder).digest == server.digests[0]


async def test_a_folder_without_facts_is_known_by_what_travelled(tmp_path: Path) -> None:
    server, folder = await pull(tmp_path)
    (folder / "fedit.json").unlink()
    assert edition_in(folder).digest == server.digests[0]


async def test_a_built_file_that_was_lost_or_spoiled_is_built_again(tmp_path: Path) -> None:
    _, folder = await pull(tmp_path)
    good = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(b"spoiled")
    assert (await pull(tmp_path))[1] == folder
    assert (folder / TENSORS).read_bytes() == good


async def test_the_adapter_itself_is_no_state(tmp_path: Path) -> None:
    server, transport, shelf = shop(tmp_path)
    wide = save(DOCUMENT.built.unflatten(built_adapter(DOCUMENT, server.adapter)))
    server.blobs[digest := digest_of(wide)] = wide
    with pytest.raises(ModelError) as refused:
        await shelf.fetch(transport, 0, digest, lambda _done, _of: None)
    assert refused.value.code == "M004"
