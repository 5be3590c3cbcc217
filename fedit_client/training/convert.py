"""A GGUF file → a model folder with safetensors; run once, in a process of its own: `python -m … SOURCE TARGET`."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

from fedit_client.training.quiet import quieten


def convert(source: Path, target: Path) -> None:
    """Write config, weights (bfloat16), tokenizer and chat template of a GGUF file into the folder `target`.

    The files depend on the source and on the library versions only, so that machines which convert for themselves
    agree on the base's digest.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = copy.deepcopy(loaded.config)
    # transformers takes a model from GGUF for a quantized one and refuses to save it: build an equal one that is not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict(), strict=True)
    plain.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
    for name in ("config.json", "generation_config.json"):
        if (target / name).exists():
            _forget_versions(target / name)


def _forget_versions(path: Path) -> None:
    """A note of the writer's version would change the digest with every upgrade."""
    config = json.loads(path.read_text("utf-8"))
    config.pop("transformers_version", None)
    config.pop("_name_or_path", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    quieten()
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
