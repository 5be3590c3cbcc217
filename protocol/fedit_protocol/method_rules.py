"""Which method goes together with what else a task says; what cannot work is refused when the task is loaded."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fedit_protocol.task_tables import MethodName

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
    why: str = ""


_BASELINE: Final = MethodTraits(
    masked=False, trusted=True, why="it needs single updates, which only a trusted server sees"
)
"""A baseline that no sum is enough for."""

TRAITS: Final[dict[MethodName, MethodTraits]] = {
    MethodName.FEDAVG: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.SCAFFOLD: MethodTraits(trusted=True, why="its count of devices is not covered by noise"),
    MethodName.FEDIT_RS: MethodTraits(
        side=True, why="it sums twice, and a sketch is not clipped, so noise bounds nothing"
    ),
    MethodName.FFA_LORA: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.ROLORA: MethodTraits(trusted=True, noise=False, cohorts=True, why="its sums differ in size by turns"),
    MethodName.FEDSVD: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.NESTED: MethodTraits(why="the weight of each block of ranks is known of one masked sum only"),
    MethodName.FEDSA: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.DITTO: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.FEDALT: MethodTraits(why="it sends values, not changes, and each device takes its own out of one mean"),
    MethodName.FED_SB: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.RAVAN: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.FEDKSEED: MethodTraits(trusted=True, noise=True, cohorts=True),
    MethodName.FLORA: replace(_BASELINE, side=True),
    MethodName.FLEXLORA: _BASELINE,
    MethodName.FEDEX_LORA: replace(_BASELINE, side=True),
}


def check_method(task: "Task") -> None:
    """Raise ValueError with the reason and the nearest valid setting if the method does not fit the task."""
    name = task.method.name
    traits = TRAITS[name]
    if name is MethodName.RAVAN and task.adapter.rank % task.method.heads:
        raise ValueError(f"method.heads = {task.method.heads} must divide adapter.rank = {task.adapter.rank}")
    if name is MethodName.FEDKSEED and task.training.proximal:
        raise ValueError(
            "training.proximal draws by gradients, and method.name = fedkseed has none; set training.proximal = 0"
        )
    where, trusted = f"method.name = {name}", task.round.mode == "trusted"
    if trusted and not traits.trusted:
        raise ValueError(
            _refusal("round.mode = trusted", where, traits, "method.name = fedavg is the nearest that does")
        )
    if not trusted and not traits.masked:
        raise ValueError(
            _refusal(
                "round.mode = masked",
                where,
                traits,
                "set round.mode = trusted, or take fedit_rs, which makes the exact mean product of sums",
            )
        )
    if task.privacy and not traits.noise:
        raise ValueError(_refusal("[privacy]", where, traits, "take fedavg, or leave out [privacy]"))
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
        raise ValueError(_refusal("round.cohorts > 1", where, traits, "set round.cohorts = 1, or take fedavg"))
    if name in (MethodName.FEDIT_RS, MethodName.FEDSVD) and task.fairness and task.fairness.rule == "qffl":
        raise ValueError(
            f"method.name = {name} does not go with fairness.rule = qffl, which scales a step that must be taken whole:"
            " take term or afl"
        )
    if bool(task.adapter.ranks) is not (name is MethodName.NESTED):
        raise ValueError(
            "adapter.ranks and method.name = nested go together: only slices with weights of their own can be of many"
            " ranks; set both, or leave out adapter.ranks and take fedavg"
        )
    if task.method.audit_every:
        _check_audit(task)
    if task.training.evaluate_every:
        _check_best_step(task)


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
    """Raise ValueError unless the task is FedIT with one sum whose sketch bounds nothing that noise has to cover."""
    if task.method.name is not MethodName.FEDAVG:
        raise ValueError(
            f"method.audit_every is for method.name = fedavg: {task.method.name} loses nothing of the product, or"
            " measures it in every round; leave audit_every out"
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
    if task.optimizer.name != "fedavg" or task.optimizer.learning_rate not in (None, 1):
        raise ValueError("method.name = fedalt needs the mean itself, not a step towards it: leave out [optimizer]")


def _check_scaffold(task: "Task") -> None:
    where = "method.name = scaffold"
    if not task.training.local_steps:
        raise ValueError(f"{where} needs the same steps on all devices: set training.local_steps")
    if task.method.population < task.round.cohort_min:
        raise ValueError(f"{where} needs method.population, the devices of the task in all, at least round.cohort_min")


def _refusal(setting: str, where: str, traits: MethodTraits, nearest: str) -> str:
    return f"{where} does not go with {setting}: {traits.why or 'it is not defined for that'}; {nearest}"
