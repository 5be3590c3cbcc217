"""Task files to begin with: the small one, and the recipes of Shepherd and of its paper, each value stated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import tomlkit
from tomlkit.items import Table

from fedit_server.tasks.files import check_task

Values = dict[str, dict[str, Any]]

_SHEPHERD: Final[Values] = {
    "base": {"quantization": "int8"},
    "adapter": {"rank": 16, "alpha": 16.0, "dropout": 0.05, "target_modules": ["q_proj"]},
    "prompt": {"template": "alpaca", "train_on_inputs": True, "cutoff_tokens": 512},
    "training": {
        "local_steps": 0, "epochs": 10.0, "batch_size": 64, "micro_batch_size": 8, "batching": "padded",
        "learning_rate": 3e-4, "schedule": "linear", "optimizer": "adamw", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "held_out_fraction": 0.0,
    },
    "round": {"rounds": 50, "cohort_min": 3, "cohort_size": 3, "selection": "uniform"},
    "encoding": {"value_range": 0.04},
}  # fmt: skip
_EXAMPLE: Final[Values] = {
    "adapter": {"rank": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "training": {"epochs": 2.0, "micro_batch_size": 32, "batching": "grouped"},
    "round": {"rounds": 10},
    "encoding": {"value_range": 0.008},
}
_PAPER: Final[Values] = {
    "training": {"learning_rate": 1.5e-4},
    "round": {"cohort_min": 4, "cohort_size": 5},
    "encoding": {"value_range": 0.0006},
}
_REMARKS: Final = {
    "quantization": "load_in_8bit; nf4 takes half the memory",
    "train_on_inputs": "false: the loss covers answers only",
    "epochs": "local_num_epochs; local_steps = 0 says that these count",
    "micro_batch_size": "rows in memory at once; lower it where memory is short, the result stays",
    "batching": "grouped: group_by_length; packed is faster than both",
    "schedule": "what the Trainer does unless it is told otherwise, here inside each round",
    "held_out_fraction": "local_val_set_size = 0; 0.05 would show on each device how it goes",
    "rounds": "num_communication_rounds",
}


def _range(rows: int, steps: int) -> str:
    return f"1.05 x the sum of the learning rates of {steps} steps, which {rows:,} rows are; change it with them"


@dataclass(frozen=True)
class Preset:
    """One recipe; `differs` are its values, over those of the presets that it goes on from."""

    meaning: str
    layers: tuple[Values, ...]
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> Values:
        """The sections of the task file."""
        found: Values = {}
        for layer in self.layers:
            for section, keys in layer.items():
                found.setdefault(section, {}).update(keys)
        return found


_THREE: Final = "a tenth of 10 devices would be one, which nothing can mask: 3 are the fewest"
PRESETS: Final[dict[str, Preset]] = {
    "small": Preset("a few minutes on laptops, the defaults", ()),
    "shepherd": Preset(
        "Shepherd's defaults",
        (_SHEPHERD,),
        {"cohort_size": _THREE, "value_range": _range(1500, 240)},
    ),
    "shepherd-example": Preset(
        "the example of Shepherd's README, 10 rounds of 2 epochs with rank 8 on attention",
        (_SHEPHERD, _EXAMPLE),
        {"cohort_size": _THREE, "value_range": _range(1500, 48)},
    ),
    "paper": Preset(
        "the example of Shepherd's README with the paper's learning rate, and 5 of 100 devices a round as there",
        (_SHEPHERD, _EXAMPLE, _PAPER),
        {
            "learning_rate": "the paper's; the program's default is 3e-4",
            "cohort_size": "5 % of 100 devices",
            "value_range": _range(150, 6),
        },
    ),
}


def preset_text(name: str, task_id: str, title: str, model: str) -> str:
    """Return the task file of a preset as TOML with remarks; raises ConfigError C013 for an id that cannot be one."""
    preset = PRESETS[name]
    remarks = {**_REMARKS, **preset.remarks}
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Preset {name}: {preset.meaning}."))
    document.add(tomlkit.comment("All settings: protocol/TASK.md. Check: fedit-server task check FILE"))
    for key, value in (("id", task_id), ("title", title), ("version", 1)):
        document.add(key, tomlkit.item(value))
    sections = {**preset.values, "base": {"model": model, **preset.values.get("base", {})}}
    sections = {"base": sections.pop("base"), **sections}
    for section, keys in sections.items():
        document.add(tomlkit.nl())
        document.add(section, _table(keys, remarks))
    check_task(document.unwrap(), f"preset {name}")
    return tomlkit.dumps(document)


def _table(keys: dict[str, Any], remarks: dict[str, str]) -> Table:
    table = tomlkit.table()
    for key, value in keys.items():
        item = tomlkit.item(value)
        if key in remarks:
            item.comment(remarks[key])
        table.add(key, item)
    return table
