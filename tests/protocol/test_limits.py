"""The owner's limits: what no server can loosen, held against every task and every offer."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.errors import ProblemType, TaskRefusedError
from fedit_protocol.limits import Limits, check_cohort, check_offer_matches, check_task
from fedit_protocol.messages import Offer
from fedit_protocol.secagg.ring import cohort_rules
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Mode, Quantization, TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation, small_task

from .rounds import refused


def document(members: int = 5, /, **sections: Any) -> TaskDocument:
    """A small document with other values in its task's sections."""
    base = small_task(members)
    task = base.task.model_dump()
    for section, changes in sections.items():
        task[section] = task[section] | changes
    return TaskDocument.model_validate(base.model_dump() | {"task": task})


def test_the_defaults_take_an_ordinary_task() -> None:
    """cohort_min = 3 and cohort_size = 5: the weakest of the possible rosters is that of four."""
    weakest = check_task(document(), Limits())
    assert weakest is not None
    assert (weakest.members, weakest.hidden_among) == (4, 2)


def test_the_weakest_roster_counts_and_not_the_largest() -> None:
    chosen = document(20, round={"cohort_min": 10})
    every = {n: Thresholds.of(n, cohort_rules(chosen.task)).hidden_among for n in range(10, 21)}
    weakest = check_task(chosen, Limits())
    assert weakest is not None
    assert weakest.hidden_among == min(every.values())


TRUSTING = Limits(modes=(Mode.MASKED, Mode.TRUSTED))


def test_a_trusted_task_is_taken_by_an_owner_who_allows_it_and_by_nobody_else() -> None:
    trusted = document(round={"mode": "trusted", "cohort_min": 1, "cohort_size": 1})
    assert check_task(trusted, TRUSTING) is None
    for limits in (Limits(), Limits(modes=())):
        with pytest.raises(TaskRefusedError) as error:
            check_task(trusted, limits)
        assert error.value.code == "K011"
        assert error.value.where == "setting limits.modes"
        assert "policy set modes masked,trusted" in (error.value.fix or "") or not limits.modes


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        ({"max_clip_norm": 99.0}, "max_clip_norm"),
        ({"max_weight": 14}, "max_weight"),
        ({"max_rank": 4}, "max_rank"),
        ({"max_epsilon": 1.0}, "max_epsilon"),
    ],
)
def test_the_owners_other_limits_hold_in_trusted_mode_too(limits: dict[str, Any], setting: str) -> None:
    trusted = document(round={"mode": "trusted"})
    with pytest.raises(TaskRefusedError) as error:
        check_task(trusted, Limits.model_validate(TRUSTING.model_dump() | limits))
    assert error.value.where == f"setting limits.{setting}"


OUTSIDE: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any], str]] = {
    "too few devices": ({}, {"min_cohort": 4}, "min_cohort"),
    "hidden among too few": ({}, {"hidden_among": 3}, "hidden_among"),
    "more may collude than the thresholds allow": (
        {"round": {"cohort_min": 8, "cohort_size": 8}},
        {"corrupt_fraction": 0.33},
        "corrupt_fraction",
    ),
    "the clip is too low": ({"encoding": {"clip_norm": 0.0009}}, {}, "min_clip_norm"),
    "the clip is too high": ({"encoding": {"clip_norm": 1001.0}}, {}, "max_clip_norm"),
    "the weight is too high": ({"encoding": {"max_weight": 257}}, {}, "max_weight"),
    "too many steps": ({"training": {"local_steps": 10_001}}, {}, "max_local_steps"),
    "the rank is too high": ({"adapter": {"rank": 65}}, {"max_rank": 64}, "max_rank"),
    "a base class that this device does not run": ({}, {"quantizations": (Quantization.BF16,)}, "quantizations"),
    "a base model that is not allowed": ({}, {"base_digests": (digest_of(b"mine"),)}, "base_digests"),
    "no mode is allowed": ({}, {"modes": ()}, "modes"),
    "a module that is not allowed": ({}, {"target_modules": ("k_proj",)}, "target_modules"),
}


@pytest.mark.parametrize(("sections", "limits", "setting"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_task_outside_the_limits_is_refused_and_the_limit_is_named(
    sections: dict[str, dict[str, Any]], limits: dict[str, Any], setting: str
) -> None:
    with pytest.raises(TaskRefusedError) as error:
        check_task(document(**sections), Limits(**limits))
    assert error.value.code == "K001"
    assert error.value.where == f"setting limits.{setting}"
    assert error.value.exit_code == 11


LIFTED = {name: case for name, case in OUTSIDE.items() if case[2] not in {"hidden_among", "corrupt_fraction"}}
"""Of the other two no single value follows from the task."""


@pytest.mark.parametrize(("sections", "limits", "setting"), LIFTED.values(), ids=LIFTED)
def test_the_command_that_a_refusal_names_lifts_that_very_limit(
    sections: dict[str, dict[str, Any]], limits: dict[str, Any], setting: str
) -> None:
    with pytest.raises(TaskRefusedError) as error:
        check_task(document(**sections), Limits(**limits))
    command = (error.value.fix or "").removesuffix(", if you trust this task")
    *_, value = command.split()
    assert command == f"fedit-client policy set {setting} {value}"
    many = isinstance(getattr(Limits(), setting), tuple)
    check_task(document(**sections), Limits.model_validate(limits | {setting: value.split(",") if many else value}))


def test_a_base_that_cannot_be_small_enough_is_refused_before_it_is_looked_for() -> None:
    """15 billion numbers of 16 bits are 28 GiB."""
    large = document().model_copy(update={"linear_parameters": 14 * 10**9, "other_parameters": 10**9})
    check_task(large, Limits(max_base_gib=28))
    with pytest.raises(TaskRefusedError, match=r"at least 27\.9 GiB") as error:
        check_task(large, Limits(max_base_gib=27.9))
    assert "max_base_gib 28" in (error.value.fix or "")


def lora(*modules: str) -> AdapterLayout:
    """The layout of an adapter on these modules of one layer."""
    return AdapterLayout.of_lora({f"model.layers.0.{name}": (4, 4) for name in modules}, modules, 2)


def test_row_08_only_allowed_modules_are_adapted_whatever_the_task_calls_them() -> None:
    chosen = document().model_copy(update={"layout": lora("mlp.up_proj", "self_attn.q_proj")})
    check_task(chosen, Limits(target_modules=("q_proj", "up_proj", "k_proj")))
    with pytest.raises(TaskRefusedError, match="it adapts up_proj") as error:
        check_task(chosen, Limits(target_modules=("q_proj",)))
    assert "target_modules q_proj,up_proj" in (error.value.fix or "")


def test_a_pinned_base_is_taken() -> None:
    check_task(document(), Limits(base_digests=(digest_of(b"base"), digest_of(b"other"))))


@pytest.mark.parametrize(
    "target", ["embed_tokens", "lm_head", "wte", "embed_out", "model.embed_tokens", "transformer.wte"]
)
def test_embeddings_are_never_adapted_however_they_are_named(target: str) -> None:
    """Row 24: which embedding rows move says which tokens a device trained on."""
    with pytest.raises(TaskRefusedError) as error:
        check_task(document(adapter={"target_modules": ["q_proj", target]}), Limits())
    assert error.value.code == "K003"


def test_a_layout_that_touches_embeddings_is_refused_whatever_the_targets_say() -> None:
    name = "base_model.model.model.embed_tokens.lora_A.weight"
    layout = AdapterLayout(tensors=(TensorSpec(name=name, shape=(2, 4)),))
    with pytest.raises(TaskRefusedError) as error:
        check_task(document().model_copy(update={"layout": layout}), Limits())
    assert error.value.code == "K003"


def test_a_harmless_module_with_a_similar_name_passes() -> None:
    check_task(document(adapter={"target_modules": ["q_proj", "my_lm_head_proj"]}), Limits())


CONTRADICTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "a threshold that some roster cannot have": {"round": {"threshold": 4}},
    "survivors that some roster cannot have": {"round": {"min_survivors": 5}},
    "a ring that no word can hold": {"encoding": {"value_bits": 16, "max_weight": 1024}},
}


@pytest.mark.parametrize("sections", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_task_that_contradicts_itself_is_refused(sections: dict[str, dict[str, Any]]) -> None:
    members = 128 if "encoding" in sections else 5
    with pytest.raises(TaskRefusedError) as error:
        check_task(document(members, **sections), Limits(max_weight=1024))
    assert error.value.code == "K004"


def test_a_roster_is_held_against_the_same_limits() -> None:
    thresholds = Thresholds(members=5, corrupt=1, min_survivors=4, threshold=4)
    assert thresholds.hidden_among == 3
    check_cohort(thresholds, Limits(min_cohort=5, hidden_among=3))
    for limits in (Limits(min_cohort=6), Limits(hidden_among=4)):
        with pytest.raises(TaskRefusedError):
            check_cohort(thresholds, limits)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_cohort": 2},
        {"hidden_among": 1},
        {"max_weight": 0},
        {"surprise": 1},
        {"modes": ("plain",)},
        {"max_clip_norm": float("inf")},
        {"min_clip_norm": 2.0, "max_clip_norm": 1.0},
    ],
    ids=str,
)
def test_limits_have_floors_of_their_own(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits(**changes)


def test_every_limit_is_described() -> None:
    assert all(field.description for field in Limits.model_fields.values())


# --- the offer and the task that was agreed to ----------------------------------------------------


def offer_of(chosen: TaskDocument, **changes: Any) -> Offer:
    federation, clock = MemoryFederation(5), ManualClock()
    return decode(Offer, read_envelope(federation.offer(chosen, clock(), **changes), Kind.OFFER).body)


def test_an_offer_of_the_agreed_task_matches() -> None:
    check_offer_matches(offer_of(small_task()), small_task())


HONEST = offer_of(small_task())
OTHER_RING = HONEST.sums[0].ring.model_copy(update={"clip_norm": 99.0})
DIFFERENT: dict[str, dict[str, Any]] = {
    "another document": {"task_digest": digest_of(b"other")},
    "another task": {"task_id": "other-task"},
    "another version": {"task_version": 2},
    "another base model": {"base_digest": digest_of(b"other")},
    "another layout": {"layout_digest": digest_of(b"other")},
    "another clip": {"sums": (HONEST.sums[0].model_copy(update={"ring": OTHER_RING}),)},
    "weaker thresholds": {"cohort": HONEST.cohort.model_copy(update={"min_survivors": 3, "threshold": 3})},
    "a smaller cohort": {"cohort": HONEST.cohort.model_copy(update={"cohort_min": 4})},
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT)
def test_c2_an_offer_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    with refused(ProblemType.CONTEXT_MISMATCH):
        check_offer_matches(HONEST.model_copy(update=changes), small_task())
