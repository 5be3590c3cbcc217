"""One way to train, in a process of its own: `python -m tests.bench.training_peers SETTING` prints one JSON line.

`fedit` is ours. `shepherd` is the seed's recipe, `grouped` the same with `group_by_length`; `trl` is TRL's SFTTrainer.
"""

import importlib
import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from fedit_client.training.quiet import quieten

from .training_setting import Setting, examples, first_adapter, random_layout

Figures = dict[str, float | str | None]


@dataclass
class Watch:
    """When each optimizer step ended, and how many real tokens had gone through by then."""

    cuda: bool
    tokens: int = 0
    marks: list[tuple[float, float, int]] = field(default_factory=list)

    def mark(self) -> None:
        """A step has ended."""
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), time.process_time(), self.tokens))

    def figures(self) -> Figures:
        """Speed over all steps but the first, in which caches fill and kernels are chosen."""
        (begun, begun_cpu, before), (ended, ended_cpu, after) = self.marks[0], self.marks[-1]
        done = after - before
        return {
            "tokens_per_second": done / (ended - begun),
            "tokens_per_cpu_second": done / (ended_cpu - begun_cpu),
            "seconds": ended - begun,
            "cpu_seconds": ended_cpu - begun_cpu,
            "timed_tokens": float(done),
            "tokens": float(self.tokens),
            "steps": float(len(self.marks)),
        }


def main() -> None:
    """Run the peer that the setting names."""
    setting = Setting.of(sys.argv[1])
    quieten()
    sys.path[:0] = [setting.trl] if setting.trl else []
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if setting.cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
    if setting.liger:
        importlib.import_module("liger_kernel.transformers").apply_liger_kernel_to_llama()
    watch = Watch(setting.cuda)
    peer = {"fedit": fedit, "trl": trl}.get(setting.peer, recipe)
    model, held_out, more = peer(setting, watch)
    figures = {**watch.figures(), "peak_mb": _peak_mb(setting.cuda), **more}
    figures["held_out_loss"] = _held_out(model, held_out, setting)
    print(json.dumps(figures), flush=True)


def fedit(setting: Setting, watch: Watch) -> tuple[Any, Any, Figures]:
    """Ours: the code that a client's worker runs."""
    from fedit_client.training.batches import Feeding
    from fedit_client.training.fused import fuse
    from fedit_client.training.group import Group
    from fedit_client.training.loop import train
    from fedit_client.training.model import attach_adapter, keep_weights_trainable, write_adapter
    from fedit_client.training.optimizer import make_optimizer
    from fedit_client.training.run import NoKeeper, Run
    from fedit_client.training.traits import traits_of
    from fedit_protocol.task import Optimizer

    from .training_limit import limit_seconds, step_flops
    from .training_models import recipe_base, tokenizer_of

    tokenizer = tokenizer_of(setting)
    rows, held_out = examples(setting, tokenizer)
    base = recipe_base(setting)
    base.requires_grad_(False)
    keep_weights_trainable(base)
    model = attach_adapter(base, setting.adapter, _layout(setting, base))
    if setting.checkpointing:
        # A GPU machine may have a transformers of before it got its present name.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    fuse(model)
    write_adapter(model, first_adapter(model))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    run = Run(model, make_optimizer(parameters, setting.training, Optimizer.ADAMW), setting.training, b"bench", Group())
    packs = traits_of(model).packs
    feeding = Feeding.of(setting.training, setting.cutoff, tokenizer.pad_token_id, setting.device, packs=packs)

    def told(_progress: Any) -> None:
        watch.tokens = run.total.tokens
        watch.mark()

    train(run, rows, feeding, NoKeeper(), told)
    figures, (_, _, first) = watch.figures(), watch.marks[0]
    share = (watch.tokens - first) / watch.tokens
    limit = limit_seconds(step_flops(model, rows, setting.rank), setting)
    spent = figures["cpu_seconds" if not setting.cuda else "seconds"]
    more: Figures = {
        "over_matmul_limit": float(spent or 0) / (limit.seconds * share),
        "matmul_tflops": limit.rate / 1e12,
        "packs": float(packs),
    }
    return model, held_out, more


def recipe(setting: Setting, watch: Watch) -> tuple[Any, Any, Figures]:
    """The seed's: transformers' Trainer, rows padded to a multiple of 8, checkpointing as PEFT prepares it."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from fedit_client.training.model import write_adapter

    from .training_models import recipe_base, tokenizer_of

    tokenizer = tokenizer_of(setting)
    rows, held_out = examples(setting, tokenizer)
    model: Any = get_peft_model(
        prepare_model_for_kbit_training(recipe_base(setting)), LoraConfig(**_lora(setting), task_type="CAUSAL_LM")
    )
    write_adapter(model, first_adapter(model))
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(setting, folder)
        if setting.peer == "grouped":
            arguments["train_sampling_strategy"] = "group_by_length"
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**arguments),
            train_dataset=_dataset(rows),
            data_collator=DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8, return_tensors="pt", padding=True),
            callbacks=[_callback(watch)],
        )
        _count(model, watch)
        trainer.train()
    return model, held_out, {}


def trl(setting: Setting, watch: Watch) -> tuple[Any, Any, Figures]:
    """TRL's, with packing and its own defaults; without FlashAttention's package its packed rows see each other."""
    from peft import LoraConfig

    from fedit_client.training.model import write_adapter

    from .training_models import recipe_base, tokenizer_of

    library, dataset = importlib.import_module("trl"), importlib.import_module("datasets").Dataset
    tokenizer = tokenizer_of(setting)
    rows, held_out = examples(setting, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        # A packed sequence holds two or three rows: about as many tokens in a step as the others have.
        step_tokens = setting.batch * sum(len(row.ids) for row in rows) / len(rows)
        sequences = min(setting.micro, max(1, round(step_tokens / setting.cutoff)))
        arguments = {
            **_arguments(setting, folder),
            "per_device_train_batch_size": sequences,
            "gradient_accumulation_steps": 1,
        }
        arguments["lr_scheduler_type"] = "constant"
        trainer = library.SFTTrainer(
            model=recipe_base(setting),
            args=library.SFTConfig(
                **arguments, packing=True, max_length=setting.cutoff, dataset_kwargs={"skip_prepare_dataset": False}
            ),
            train_dataset=dataset.from_list([{"input_ids": row.ids.tolist()} for row in rows]),
            processing_class=tokenizer,
            peft_config=LoraConfig(**_lora(setting), task_type="CAUSAL_LM"),
            callbacks=[_callback(watch)],
        )
        model: Any = trainer.model
        write_adapter(model, first_adapter(model))
        _count(model, watch)
        trainer.train()
    return model, held_out, {"checkpointing": float(trainer.args.gradient_checkpointing)}


def _lora(setting: Setting) -> dict[str, Any]:
    spec = setting.adapter
    return {
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": list(spec.target_modules),
        "bias": "none",
    }


def _layout(setting: Setting, base: Any) -> Any:
    if setting.random_weights:
        return random_layout(setting)
    from fedit_protocol.adapter import AdapterLayout

    spec = setting.adapter
    shapes = {
        path: (module.out_features, module.in_features)
        for path, module in base.named_modules()
        if hasattr(module, "out_features") and path != "lm_head"
    }
    return AdapterLayout.of_lora(shapes, spec.target_modules, spec.rank)


def _arguments(setting: Setting, folder: str) -> dict[str, Any]:
    spec = setting.training
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": spec.micro_batch_size,
        "gradient_accumulation_steps": spec.batch_size // spec.micro_batch_size,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": "constant",
        "bf16": True,
        "use_cpu": not setting.cuda,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": setting.cuda,
        "seed": 0,
    }


def _dataset(rows: Any) -> Any:
    return [
        {
            "input_ids": row.ids.tolist(),
            "attention_mask": [1] * len(row.ids),
            "labels": [int(token) if wanted else -100 for token, wanted in zip(row.ids, row.loss_mask, strict=True)],
        }
        for row in rows
    ]


def _callback(watch: Watch) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_step_end(self, *args: Any, **named: Any) -> None:
            watch.mark()

    return Steps()


def _count(model: Any, watch: Watch) -> None:
    """Add the real tokens of every pass: those that are attended to, or all where rows come without padding."""

    def seen(_module: Any, _args: Any, named: dict[str, Any]) -> None:
        mask, ids = named.get("attention_mask"), named["input_ids"]
        watch.tokens += int(mask.sum()) if mask is not None and mask.dim() == 2 else ids.numel()

    model.register_forward_pre_hook(seen, with_kwargs=True)


def _held_out(model: Any, rows: Any, setting: Setting) -> float:
    """Mean loss per token over rows that nobody trained on, one at a time: the same for every peer."""
    import torch
    from torch.nn.functional import cross_entropy

    kind = "cuda" if setting.cuda else "cpu"
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16):
        for row in rows:
            ids = torch.from_numpy(row.ids).to(setting.device)[None]
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
            tokens += ids.shape[1] - 1
    return total / tokens


def _peak_mb(cuda: bool) -> float:
    if cuda:
        import torch

        return torch.cuda.max_memory_reserved() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
