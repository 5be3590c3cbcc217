"""One tiny model for all tests of this folder, and what they share."""

from pathlib import Path
from typing import Any

import pytest

from ..tiny_llama import make_tiny_llama


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's folder."""
    return make_tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    """Its tokenizer."""
    from fedit_client.training.tokenizer import load_tokenizer

    return load_tokenizer(base)
