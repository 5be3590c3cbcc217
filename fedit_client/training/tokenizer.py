"""The tokenizer of a base, from pinned files only; torch is not needed for it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from fedit_client.training.base_view import pinned_view
from fedit_protocol.errors import ModelError


def load_tokenizer(base: Path) -> Any:
    """Return the base's tokenizer, from pinned files only; raises ModelError M003 if there is none, or no end token."""
    try:
        with pinned_view(base) as folder:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"the base's tokenizer cannot be loaded: {brief}", code="M003", where=str(base)) from error
    if tokenizer.eos_token_id is None:
        raise ModelError("the base's tokenizer has no end token", code="M003", where=str(base))
    return tokenizer
