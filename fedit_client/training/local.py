"""One round's local work inside this process: load, tokenise, measure, train, measure, subtract."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedit_client.hardware.device import DevicePlan
from fedit_client.hardware.optimizers import usable
from fedit_client.training.batches import Feeding, batches_of, step_rows
from fedit_client.training.best import Best
from fedit_client.training.canary import canary_loss
from fedit_client.training.checkpoint import binding_of
from fedit_client.training.domains import start_figures
from fedit_client.training.forms import form_of
from fedit_client.training.fused import fuse
from fedit_client.training.group import Group
from fedit_client.training.loss import feeding_of, total_loss
from fedit_client.training.memory import peak_bytes, use_of
from fedit_client.training.mixture import mix
from fedit_client.training.model import (
    attach_adapter,
    load_base,
    load_tensors,
    parameter_names,
    train_only,
    write_adapter,
)
from fedit_client.training.optimizer import make_optimizer
from fedit_client.training.own_control import controls, keep_next, uses_control
from fedit_client.training.personal import Personal
from fedit_client.training.pull import Drift, Pull, pulls_of
from fedit_client.training.ranks import adapter_at, cut, held_rank
from fedit_client.training.request import (
    LocalResult,
    OnProgress,
    TrainingProgress,
    TrainingRequest,
    nobody_listens,
)
from fedit_client.training.rows import Rows, rows_of
from fedit_client.training.run import Keeper, NoKeeper, Run
from fedit_client.training.scaling import LossScale
from fedit_client.training.side import beside
from fedit_client.training.tokenize import Example
from fedit_client.training.tokenizer import load_tokenizer
from fedit_client.training.unpacked import unpack
from fedit_protocol.methods import method_of
from fedit_protocol.task import Optimizer, Task, TaskDocument
from fedit_protocol.task_tables import MethodName


@dataclass(frozen=True)
class Loaded:
    """A base with the task's adapter on it, and its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def pad_id(self) -> int:
        """What fills short rows; never attended to, so any id would do."""
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id)


def load(document: TaskDocument, base: Path, plan: DevicePlan, *, unpacked: bool = False) -> Loaded:
    """Load base and tokenizer and attach a fresh adapter; raises ModelError, TaskRefusedError.

    A 4-bit base that is `unpacked` gives the same numbers with more memory and less time (`unpacked`).
    """
    held = load_base(base, plan)
    if unpacked:
        unpack(held, getattr(torch, plan.compute_dtype))
    model = attach_adapter(held, *adapter_at(document, plan.rank))
    if plan.checkpointing:
        # Non-reentrant: the reentrant kind needs inputs that ask for gradients, and a frozen base has none.
        model.activation_checkpointing_enable({"use_reentrant": False})
    fuse(model)
    if document.task.method.name is MethodName.FEDALT:
        mix(model)
    return Loaded(model, load_tokenizer(base))


def train_here(
    loaded: Loaded,
    request: TrainingRequest,
    on_progress: OnProgress,
    keeper: Keeper | None = None,
    group: Group | None = None,
    rows: Rows | None = None,
) -> LocalResult:
    """Train from the request's global adapter, whatever the model's holds, or from where the keeper has the run.

    Of a group that shares the run only the leader measures, unless the task wants the best step. `rows` are the
    request's, where they are in tokens already. Raises DataError, DeviceError.
    """
    with beside(loaded.model, request.document.built, request.public):
        return _train(loaded, request, on_progress, keeper or NoKeeper(), group or Group(), rows)


def _train(
    loaded: Loaded, request: TrainingRequest, on_progress: OnProgress, keeper: Keeper, group: Group, rows: Rows | None
) -> LocalResult:
    begun = time.monotonic()
    task = request.plan.applied(request.document.task)
    every = task.training.evaluate_every
    on_progress(TrainingProgress("prepare", 0, len(request.records)))
    rows = rows or rows_of(request, loaded.tokenizer, looks=group.leads or every > 0)
    examples = rows.to_train.examples
    on_progress(TrainingProgress("prepare", len(request.records), len(request.records)))
    own = _laid_in(loaded, request)
    canary = _canary(loaded, request, on_progress) if group.leads else None
    kind, _ = usable(task.training.optimizer, request.plan.device)
    with form_of(loaded.model, request.document, own.shared, request.plan.rank) as form:
        feeding = feeding_of(loaded.model, task, loaded.pad_id, request.plan.loss_chunk)
        measure = partial(_measure, loaded, rows.kept_back.examples, feeding, on_progress)
        begin = partial(_begun, loaded, task, kind, request, group)
        run = begin()
        steps = len(step_rows(len(examples), task.training, request.seed))
        run.pulls += (*own.pulls(loaded.model, steps), *_drift(loaded.model, request))
        if every:  # in each process of a group, so that all of them end with the same step's adapter
            run.best = Best(every, measure)
        figures = _start_figures(loaded, examples, feeding, task) if group.leads else {}
        binding = binding_of(request, examples, kind)
        if (state := keeper.saved(binding)) is None:
            run.held_out_loss = measure()
        else:
            run.restore(state)
        telling = _Telling(loaded.model, request.plan, on_progress, trainings=2 if own.trains_again else 1)
        trained = form.train(run, examples, feeding, keeper, telling)
        loss_after = own_loss = _settled(run, measure())
        update, tokens = form.update(), trained.tokens
        if own.trains_again:
            keeper.saved(f"personal {binding}")  # a crash from here on costs both trainings, and mixes up neither
            telling.before = run.done
            tokens += form.train(own.begin_again(loaded.model, begin), examples, feeding, keeper, telling).tokens
            own_loss = measure()
        if group.leads:
            if uses_control(task):
                keep_next(request, update)
            own.keep(loaded.model, own_loss)
    return LocalResult(
        update=update,
        examples=len(examples),
        tokens=tokens,
        train_loss=trained.mean_loss,
        held_out_loss=run.held_out_loss,
        held_out_loss_after=loss_after,
        seconds=time.monotonic() - begun,
        cut_rows=rows.cut,
        skipped_rows=rows.skipped,
        tokens_per_second=telling.speed,
        peak_bytes=peak_bytes(request.plan),
        canary_loss=canary,
        steps=request.plan.most_steps,
        personal_loss=own_loss if own.is_kept else None,
        statistics=figures,
    )


def _laid_in(loaded: Loaded, request: TrainingRequest) -> Personal:
    """Put the adapter that training starts from into the model, and let the method's factors train."""
    own = Personal.of(request, load_tensors(request.global_adapter, request.document.built))
    write_adapter(loaded.model, cut(own.start, held_rank(request.document, request.plan.rank)))
    own.prepare(loaded.model)
    train_only(loaded.model, method_of(request.document).trained(request.document, request.version))
    return own


@dataclass
class _Telling:
    """Passes on each step, with what the device is used for; remembers the speed that was told last."""

    model: Any
    plan: DevicePlan
    on_progress: OnProgress
    trainings: int
    """How many trainings of the same length there are, one behind the other."""
    before: int = 0
    """Steps of the trainings before this one."""
    speed: float = 0.0

    def __call__(self, progress: TrainingProgress) -> None:
        """Take one step's progress."""
        self.speed = progress.tokens_per_second or self.speed
        # To ask a driver for watts takes as long as a small model's step.
        use = None if self.on_progress is nobody_listens else use_of(self.model, self.plan)
        total = progress.total * self.trainings
        self.on_progress(replace(progress, done=self.before + progress.done, total=total, use=use))


def _start_figures(loaded: Loaded, examples: Sequence[Example], feeding: Feeding, task: Task) -> dict[str, float]:
    """Look at the domains of the task before a step of training, or of a run that goes on."""
    return start_figures(loaded.model, examples, feeding, task.fairness.domains) if task.fairness else {}


def _canary(loaded: Loaded, request: TrainingRequest, on_progress: OnProgress) -> float | None:
    """Score the canary rows with the global adapter, before a step of training, or of a run that goes on."""
    task = request.document.task
    if not request.canary or task.canary is None:
        return None
    on_progress(TrainingProgress("evaluate", 0, len(task.canary.rows)))
    loss = canary_loss(loaded.model, loaded.tokenizer, loaded.pad_id, task, task.canary)
    on_progress(TrainingProgress("evaluate", len(task.canary.rows), len(task.canary.rows)))
    return loss


def _begun(loaded: Loaded, task: Task, kind: Optimizer, request: TrainingRequest, group: Group) -> Run:
    spec = task.training
    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    run = Run(loaded.model, make_optimizer(parameters, spec, kind), spec, request.seed, group)
    run.scale = LossScale.of(request.plan.compute_dtype)
    run.pulls = pulls_of(spec, loaded.model)
    return run


def _drift(model: Any, request: TrainingRequest) -> tuple[Pull, ...]:
    """SCAFFOLD's correction c − c_k of each parameter; nothing in other tasks."""
    if not uses_control(request.document.task):
        return ()
    shared, own = controls(request)
    names, parameters = parameter_names(model), dict(model.named_parameters())
    corrections = {
        names[name]: torch.from_numpy(values.copy()).to(parameters[names[name]].device)
        for name, values in request.document.layout.unflatten((shared - own).astype(np.float32)).items()
    }
    return (Drift(corrections),)


def _settled(run: Run, loss: float | None) -> float | None:
    """Put the best step's adapter back where the task wants that; return the held-out loss of the one that stands."""
    return loss if run.best is None else run.best.settle(run, loss)


def _measure(
    loaded: Loaded,
    examples: Sequence[Example],
    feeding: Feeding,
    on_progress: OnProgress,
) -> float | None:
    if not examples:
        return None
    on_progress(TrainingProgress("evaluate", 0, len(examples)))
    total, tokens = total_loss(loaded.model, batches_of(examples, feeding), feeding.positions)
    on_progress(TrainingProgress("evaluate", len(examples), len(examples), total / tokens))
    return total / tokens
