"""Which method goes together with what else a task says; what cannot work is refused when the task is loaded."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fedit_protocol.diversity import check_diversity
from fedit_protocol.task_tables import MethodName, MethodSpec

if TYPE_CHECKING:
    from fedit_protocol.task import Task


@dataclass(frozen=True)
class MethodTraits:
    """What a method works with; `why` says why not with the rest, in words for the operator."""

    masked: bool = True
    """Whether sums are enough for it."""
    trusted: bool = False
    """Whether it works from single updates."""
    noise: bool = False
    """Whether [privacy] bounds all that it sends."""
    cohorts: bool = False
    """Whether a round may have several cohorts."""
    side: bool = False
    """Whether a second, frozen adapter is carried along beside the one that is trained."""
    cut: bool = False
    """Whether what devices get of that adapter is cut from a whole that the server keeps."""
    whole: bool = False
    """Whether its steps put other factors in the place of those before, so that no server optimizer can act on them."""
    unaudited: str = "it loses nothing of the product"
    """Why four probes in a sum would say nothing of it (`method.audit_every`); empty where they do."""
    why: str = ""
    why_not_trusted: str = ""
    """Why not from single updates, where that is another reason."""
    nearest: MethodName = MethodName.FEDAVG
    """What comes nearest to it in mode trusted."""
    nearest_noise: MethodName = MethodName.FEDAVG
    """What comes nearest to it beside [privacy]."""


_BASELINE: Final = MethodTraits(
    masked=False,
    trusted=True,
    unaudited="its server makes the mean product of single updates",
    why="it needs single updates, which only a trusted server sees",
)
"""A baseline that no sum is enough for."""

_MEASURED: Final = "it measures in every round what averaging loses"

TRAITS: Final[dict[MethodName, MethodTraits]] = {
    MethodName.FEDAVG: MethodTraits(trusted=True, noise=True, cohorts=True, unaudited=""),
    MethodName.SCAFFOLD: MethodTraits(trusted=True, unaudited="", why="its count of devices is not covered by noise"),
    MethodName.FEDIT_RS: MethodTraits(
        side=True,
        cut=True,
        unaudited=_MEASURED,
        why="it sums twice, and a sketch is not clipped, so noise bounds nothing",
        why_not_trusted="a server that sees single updates makes the exact product without a sketch",
        nearest=MethodName.FEDEX_LORA,
        nearest_noise=MethodName.FFA_LORA,
    ),
    MethodName.FEDIT_RS1: MethodTraits(
        side=True,
        cut=True,
        unaudited=_MEASURED,
        why="its sketches are not clipped, so noise bounds nothing, and robust rules combine none",
        why_not_trusted="a server that sees single updates makes the exact product without a sketch",
        nearest=MethodName.FEDEX_LORA,
        nearest_noise=MethodName.FFA_LORA,
    ),
    MethodName.FFA_LORA: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.ROLORA: MethodTraits(
        trusted=True, cohorts=True, why="its sums differ in size by turns", nearest_noise=MethodName.FFA_LORA
    ),
    MethodName.FEDSVD: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.NESTED: MethodTraits(
        unaudited="each slice is the mean over other devices, so that one sum of sketches fits none of them",
        why="the weight of each block of ranks is known of one masked sum only",
    ),
    MethodName.FEDSA: MethodTraits(
        trusted=True, noise=True, cohorts=True, unaudited="no B is sent, so that the sum says nothing of a product"
    ),
    MethodName.DITTO: MethodTraits(trusted=True, noise=True, cohorts=True, unaudited=""),
    MethodName.FEDALT: MethodTraits(
        unaudited="it sends values, and the probes are of changes",
        why="it sends values, not changes, and each device takes its own out of one mean",
    ),
    MethodName.FED_SB: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.RAVAN: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.FEDKSEED: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.FLORA: replace(_BASELINE, side=True, whole=True),
    MethodName.FLEXLORA: replace(_BASELINE, whole=True),
    MethodName.FEDEX_LORA: replace(_BASELINE, side=True),
}

OWN_SETTINGS: Final[dict[str, MethodName]] = {
    "population": MethodName.SCAFFOLD,
    "refactor_every": MethodName.FEDSVD,
    "personal_steps": MethodName.FEDSA,
    "personal_pull": MethodName.DITTO,
    "heads": MethodName.RAVAN,
    "seeds": MethodName.FEDKSEED,
    "probe_step": MethodName.FEDKSEED,
}
"""Settings of `[method]` that one method reads: beside another one they would promise what nothing does."""


SKETCHED_COHORT: Final = 11
"""The least cohort of a method with a sketch, of whom 8 are left where [round] is at its defaults (C0)."""

SKETCH_SETTINGS: Final = ("sketch_rank", "sketch_probes", "sketch_adapts")
"""Settings that both methods with a sketch read."""

_SKETCHED: Final = (MethodName.FEDIT_RS, MethodName.FEDIT_RS1)


def loses_side(old: MethodName, new: MethodName) -> bool:
    """Say whether a side delta that one method has made would be lost, at once or with the next cut, under another."""
    before, after = TRAITS[old], TRAITS[new]
    return before.side and (before.side, before.cut) != (after.side, after.cut)


def check_method(task: "Task") -> None:
    """Raise ValueError with the reason and the nearest valid setting if the method does not fit the task."""
    name = task.method.name
    traits = TRAITS[name]
    _check_settings(task)
    if name is MethodName.FEDKSEED:
        _check_forward_only(task)
    where, trusted = f"method.name = {name}", task.round.mode == "trusted"
    _check_one_masked_sum(task)
    if trusted and not traits.trusted:
        raise ValueError(
            _refusal(
                "round.mode = trusted",
                where,
                traits.why_not_trusted or traits.why,
                f"method.name = {traits.nearest} is the nearest that does",
            )
        )
    if not trusted and not traits.masked:
        raise ValueError(
            _refusal(
                "round.mode = masked",
                where,
                traits.why,
                f"set round.mode = trusted, or take ffa_lora, which loses nothing of sums, or fedit_rs{_many(task)},"
                " which makes the exact mean product of them",
            )
        )
    if task.privacy and not traits.noise:
        raise ValueError(
            _refusal("[privacy]", where, traits.why, f"take {traits.nearest_noise}, or leave out [privacy]")
        )
    _check_step(task)
    if name is MethodName.FEDALT:
        _check_values(task)
    if name is MethodName.SCAFFOLD:
        _check_scaffold(task)
    if name is MethodName.FEDSA and task.gates.max_loss_ratio:
        raise ValueError(
            "method.name = fedsa has no adapter without a device's own B, so gates.max_loss_ratio would compare the"
            " base with itself: leave it out, or take ditto"
        )
    if task.round.cohorts > 1 and not traits.cohorts:
        raise ValueError(_refusal("round.cohorts > 1", where, traits.why, "set round.cohorts = 1, or take fedavg"))
    if name in (*_SKETCHED, MethodName.FEDSVD) and task.fairness and task.fairness.rule == "qffl":
        raise ValueError(
            f"method.name = {name} does not go with fairness.rule = qffl, which scales a step that must be taken whole:"
            " take term or afl"
        )
    _check_ranks(task)
    if task.method.audit_every:
        _check_audit(task)
    check_diversity(task)
    if task.training.evaluate_every:
        _check_best_step(task)


def _check_settings(task: "Task") -> None:
    """Raise ValueError if a setting is another method's, or does not fit its own."""
    name, method = task.method.name, task.method
    for setting, owner in OWN_SETTINGS.items():
        if name is not owner and setting in method.model_dump():
            raise ValueError(f"method.{setting} belongs to method.name = {owner}, not to {name}: leave it out")
    for setting in SKETCH_SETTINGS if name not in _SKETCHED else ():
        if getattr(method, setting) != MethodSpec.model_fields[setting].default:
            raise ValueError(f"method.{setting} belongs to fedit_rs and fedit_rs1, not to {name}: leave it out")
    rank = task.adapter.rank
    if name is MethodName.RAVAN and rank % method.heads:
        fitting = min((h for h in range(1, rank + 1) if rank % h == 0), key=lambda h: (abs(h - method.heads), -h))
        near = f"set method.heads = {fitting}" if fitting > 1 else "take fed_sb, which has one core"
        raise ValueError(f"method.heads = {method.heads} must divide adapter.rank = {rank}: {near}")


def _check_forward_only(task: "Task") -> None:
    """Raise ValueError for settings of an optimizer where steps are made from two forward passes and the rate alone."""
    training, without = task.training, "method.name = fedkseed has none"
    if training.proximal:
        raise ValueError(f"training.proximal draws by gradients, and {without}; set training.proximal = 0")
    if training.weight_decay:
        raise ValueError(f"training.weight_decay is AdamW's, and {without}; set training.weight_decay = 0")
    if training.optimizer != "adamw":
        raise ValueError(f"training.optimizer says how AdamW keeps its moments, and {without}; leave it out")


def _check_one_masked_sum(task: "Task") -> None:
    """Raise ValueError where devices of many ranks would meet in something else than one masked sum without noise."""
    name, trusted = task.method.name, task.round.mode == "trusted"
    if not task.adapter.ranks or not (trusted or task.privacy or task.round.cohorts > 1):
        return
    then = {MethodName.NESTED: " and take fedavg", MethodName.RAVAN: ", so that all devices train all heads"}
    other = "set round.mode = masked" if trusted else "leave out [privacy]" if task.privacy else "set round.cohorts = 1"
    able = "" if name in then else " and method.name = nested"
    raise ValueError(
        "adapter.ranks needs round.mode = masked, one cohort and no [privacy]: the weight of each block of ranks is"
        f" known of one masked sum only; leave out adapter.ranks{then.get(name, '')}, or {other}{able}"
    )


def _check_ranks(task: "Task") -> None:
    """Raise ValueError where devices of many ranks would be summed without a weight for each block of slices."""
    rank, nested = task.adapter.rank, task.method.name is MethodName.NESTED
    if nested and not task.adapter.ranks:
        half = f"set adapter.ranks = [{rank // 2}, {rank}], or take fedavg" if rank > 1 else "take fedavg"
        raise ValueError(f"method.name = nested averages slices of many ranks, and adapter.ranks lists none: {half}")
    if not task.adapter.ranks or nested:
        return
    if task.method.name is not MethodName.RAVAN:
        raise ValueError(
            f"adapter.ranks needs a weight for each block of slices, which method.name = {task.method.name} has not:"
            " set method.name = nested, or leave out adapter.ranks"
        )
    inner = rank // task.method.heads
    if any(each % inner for each in task.adapter.ranks):
        whole = sorted({max(1, each // inner) * inner for each in task.adapter.ranks})
        near = f"set adapter.ranks = {whole}" if len(whole) > 1 else "leave it out"
        raise ValueError(f"adapter.ranks counts whole heads of rank {inner} where method.name = ravan: {near}")


def _check_best_step(task: "Task") -> None:
    """Raise ValueError where the adapter of an earlier step than the last is not what is counted with."""
    last = {MethodName.SCAFFOLD: "divides by all steps of a round", MethodName.FEDKSEED: "sends every step by itself"}
    why = last.get(task.method.name)
    if why:
        raise ValueError(
            f"method.name = {task.method.name} {why}, so training.evaluate_every cannot take back the last ones: leave"
            " it out, or take fedavg"
        )
    if task.optimizer.fednova:
        raise ValueError(
            "optimizer.fednova divides by all steps of a round, so training.evaluate_every cannot take back the last"
            " ones: leave one of them out"
        )


def _check_audit(task: "Task") -> None:
    """Raise ValueError unless A and B are averaged in one sum, and the sketch is nothing that noise has to cover."""
    if why := TRAITS[task.method.name].unaudited:
        raise ValueError(
            f"method.audit_every does not go with method.name = {task.method.name}: {why}; leave audit_every out"
        )
    if task.privacy:
        raise ValueError("method.audit_every does not go with [privacy]: no noise covers a sketch; leave one out")
    if task.round.mode == "trusted":
        raise ValueError("method.audit_every needs round.mode = masked: the probes travel in the masked sum")
    if task.optimizer.fednova:
        raise ValueError("method.audit_every does not go with optimizer.fednova, which divides updates: leave one out")
    if task.compression:
        raise ValueError("method.audit_every does not go with [compression], whose message is no update: leave one out")
    if task.round.cohorts > 1:
        raise ValueError("method.audit_every needs round.cohorts = 1: robust rules combine no sketches")


def _check_step(task: "Task") -> None:
    """Raise ValueError where a server optimizer would do nothing, or would undo what the method promises."""
    name, optimizer = task.method.name, task.optimizer
    if optimizer.plain:
        return
    anew = name is MethodName.FEDSVD and task.method.refactor_every == 1
    if TRAITS[name].whole or anew:
        other = (
            "set method.refactor_every = 2 or more, or take ffa_lora"
            if anew
            else "or take fedavg"
            if optimizer.remembers
            else "or take fedex_lora"
        )
        raise ValueError(
            f"method.name = {name} writes the factors anew in every round, so that the step is taken whole and"
            f" [optimizer] would do nothing: leave it out, {other}"
        )
    if name is MethodName.FEDEX_LORA and optimizer.remembers:
        raise ValueError(
            f"method.name = fedex_lora makes the mean product exactly, and with optimizer.name = {optimizer.name} the"
            " step is none of that product: set optimizer.name = fedavg, whose learning_rate goes with it, or take"
            " method.name = fedavg"
        )


def _check_values(task: "Task") -> None:
    """Raise ValueError unless a task of fedalt says how large values may be, and leaves their mean as it is."""
    if not task.encoding.value_range:
        raise ValueError(
            "method.name = fedalt sends values that grow over rounds, so encoding.value_range must be stated: what a"
            " round can move times round.rounds is enough"
        )
    if task.fairness and task.fairness.rule == "qffl":
        raise ValueError(
            "method.name = fedalt needs the mean itself, which fairness.rule = qffl scales: take afl or term"
        )
    if not task.optimizer.plain:
        raise ValueError("method.name = fedalt needs the mean itself, not a step towards it: leave out [optimizer]")


def _check_scaffold(task: "Task") -> None:
    where = "method.name = scaffold"
    if not task.training.local_steps:
        raise ValueError(f"{where} needs the same steps on all devices: set training.local_steps")
    if task.method.population < task.round.cohort_min:
        raise ValueError(
            f"{where} needs method.population, the devices of the task in all: set it to {task.round.cohort_min}, or"
            " more"
        )


def _many(task: "Task") -> str:
    """Return what a sketch needs besides: in a smaller cohort it would say too much of each device."""
    if task.round.cohort_min >= SKETCHED_COHORT:
        return ""
    size = f" and cohort_size = {SKETCHED_COHORT}" if task.round.cohort_size < SKETCHED_COHORT else ""
    return f" with round.cohort_min = {SKETCHED_COHORT}{size}"


def _refusal(setting: str, where: str, why: str, nearest: str) -> str:
    return f"{where} does not go with {setting}: {why or 'it is not defined for that'}; {nearest}"
