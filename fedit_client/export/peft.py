"""`--to peft`: the adapter by itself, a folder for `PeftModel.from_pretrained`, vLLM or TGI."""

import json
import shutil
from pathlib import Path

from fedit_client.home.durable import translating
from fedit_protocol.peft_folder import CONFIG, WEIGHTS, peft_config
from fedit_protocol.task import Task


def write_peft(task: Task, adapter: Path, revision: str, folder: Path) -> None:
    """Copy the adapter's tensors and write the configuration, with the base's revision filled where it is known."""
    with translating(adapter):
        kept = json.loads((adapter / CONFIG).read_bytes())
    config = peft_config(task, kept["r"] if kept["r"] != task.adapter.rank else 0)  # with a side delta it is higher
    config["revision"] = revision or None
    with translating(folder):
        shutil.copyfile(adapter / WEIGHTS, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
