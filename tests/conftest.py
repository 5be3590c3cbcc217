"""What every test shares: no hub, one thread per library, and the folder of public data where there is one."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before anything imports torch or transformers, and handed on to the programs that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests that want a keyring bring their own; nothing is ever written into the developer's.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# What nohup or a shell's `&` has ignored would stay ignored in every program that tests start, and never end it.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if (_number := getattr(signal, _name, None)) is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data sets, never checked in: FEDIT_TEST_DATA, or shared/data beside this project."""
    folder = Path(os.environ.get("FEDIT_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}: set FEDIT_TEST_DATA to the folder that holds dolly15k.jsonl")
    return folder


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands that run in a test's own process set up logging to a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked gpu skips where there is no CUDA device; torch is asked only then."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")
