"""Optimisers and selections that a task cannot have, each refused with the reason and the nearest that works."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedit_protocol.task import RoundSpec, Task
from fedit_protocol.task_optimizer import optimizer_advice
from fedit_protocol.task_selection import least_free

DOMAINS = {"domains": ["closed_qa", "poetry"]}


def task(**tables: dict[str, Any]) -> Task:
    """Return a small task with these tables."""
    return Task.model_validate({"id": "notes", "title": "Notes", "base": {"model": "a/base"}, **tables})


REFUSED: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "oort under masks": ({"round": {"selection": "oort"}}, "masks hide.*the nearest.*selection = self"),
    "power of choice under masks": ({"round": {"selection": "power_of_choice"}}, "or set round.mode = trusted"),
    "stratified without domains": ({"round": {"selection": "stratified"}}, "needs selection.domains"),
    "shares that do not fit": (
        {"selection": {**DOMAINS, "shares": [1.0]}},
        "has 1 numbers for 2 domains: give 2, in .* order",
    ),
    "shares of nothing": ({"selection": {"shares": [1.0]}}, "for 0 domains: name the domains, or leave it out"),
    "a domain twice": ({"selection": {"domains": ["a", "a"]}}, "twice"),
    "joining that says much": (
        {"selection": {"join_least": 0.1, "join_share": 0.5}},
        "at most 4 times.*set join_most = 0.4 or",
    ),
    "a mean below its range": ({"selection": {"join_share": 0.1}}, "= 0.1 is not between .*: set join_share = 0.25"),
    "a mean above its range": (
        {"selection": {"join_share": 0.9, "join_most": 0.75}},
        "= 0.9 is not between .*: set join_share = 0.75",
    ),
    "a range the wrong way round": (
        {"selection": {"join_share": 0.3, "join_least": 0.5, "join_most": 0.25}},
        "join_least = 0.5 exceeds join_most = 0.25: set join_least = 0.25 or less",
    ),
    "momentum of a rule without": (
        {"optimizer": {"momentum": 0.9}},
        "not to fedavg: leave it out, or set optimizer.name = fedavgm",
    ),
    "micro batches that do not fill a step": (
        {"training": {"batch_size": 8, "micro_batch_size": 3}},
        "micro_batch_size = 3 must divide batch_size = 8: set micro_batch_size = 2",
    ),
    "micro batches larger than a step": (
        {"training": {"batch_size": 2, "micro_batch_size": 4}},
        "must divide batch_size = 2: set micro_batch_size = 2",
    ),
    "self in trusted mode": (
        {"round": {"selection": "self", "mode": "trusted", "cohort_min": 1}},
        "mode = trusted hides nothing: take uniform",
    ),
    "self with noise": (
        {
            "round": {"selection": "self", "cohort_size": 10},
            "privacy": {"noise_multiplier": 1.0},
            "encoding": {"max_weight": 1},
        },
        "weighs devices unlike",
    ),
    "self with weights by domain": (
        {"round": {"selection": "self", "cohort_size": 10}, "fairness": {"domains": ["a", "b"], "rule": "afl"}},
        "both decide what a device weighs",
    ),
    "self in several cohorts": ({"round": {"selection": "self", "cohort_size": 10, "cohorts": 2}}, "cohorts = 1 only"),
    "self with too few invited": ({"round": {"selection": "self", "cohort_size": 5}}, "2.5 join on average"),
    "self with weights too large": (
        {"round": {"selection": "self", "cohort_size": 10}, "encoding": {"max_weight": 65}},
        "max_weight is at most 64",
    ),
    "more invited than a cohort may have": (
        {"round": {"selection": "resource_aware", "cohort_size": 103}},
        "cohort_size is at most 102",
    ),
    "a server step beside factors that are written anew": (
        {"method": {"name": "fedsvd"}, "optimizer": {"name": "nesterov"}},
        "would do nothing: leave it out, set method.refactor_every = 2 or more, or take ffa_lora",
    ),
    "fednova with noise": (
        {"optimizer": {"fednova": True}, "privacy": {"noise_multiplier": 1.0}, "encoding": {"max_weight": 1}},
        r"\[privacy\] covers no figures: leave it out",
    ),
    "fednova where updates are sketched": (
        {"optimizer": {"fednova": True}, "method": {"name": "fedit_rs"}},
        "is not linear in: take fedavg",
    ),
    "fednova where updates are audited": (
        {"optimizer": {"fednova": True}, "method": {"audit_every": 5}},
        "which divides updates",
    ),
    "fednova where the length of updates counts": (
        {"optimizer": {"fednova": True}, "fairness": {"domains": ["a", "b"], "rule": "qffl"}},
        "take term or afl",
    ),
    "scaffold without the number of its devices": ({"method": {"name": "scaffold"}}, "set it to 3, or more"),
    "scaffold with unlike steps": (
        {"method": {"name": "scaffold", "population": 9}, "training": {"local_steps": 0, "max_steps": 9}},
        "the same steps on all devices",
    ),
    "scaffold with noise": (
        {
            "method": {"name": "scaffold", "population": 9},
            "privacy": {"noise_multiplier": 1.0},
            "encoding": {"max_weight": 1},
        },
        "not covered by noise",
    ),
    "fednova without a bound on steps": (
        {"optimizer": {"fednova": True}, "training": {"local_steps": 0}},
        "needs training.max_steps",
    ),
    "fednova with a robust rule": (
        {"optimizer": {"fednova": True}, "round": {"combine": "median", "cohorts": 5}},
        "combine = weighted",
    ),
    "a single update under masks": (
        {"method": {"name": "flexlora"}},
        "needs single updates.*set round.mode = trusted, or take ffa_lora, .* or fedit_rs with round.cohort_min = 11 ",
    ),
    "a single update of many under masks": (
        {"method": {"name": "flora"}, "round": {"cohort_min": 11, "cohort_size": 11}},
        "or fedit_rs, which makes the exact mean product",
    ),
    "a sketch of what the server sees": (
        {"method": {"name": "fedit_rs"}, "round": {"mode": "trusted"}},
        "without a sketch; method.name = fedex_lora is the nearest",
    ),
    "a sketch with noise": (
        {
            "method": {"name": "fedit_rs"},
            "privacy": {"noise_multiplier": 1.0},
            "encoding": {"max_weight": 1},
        },
        "noise bounds nothing; take ffa_lora",
    ),
    "ranks without slices": ({"adapter": {"ranks": [4, 8]}}, "a weight for each block of slices.*= nested"),
    "ranks in trusted mode": (
        {"adapter": {"ranks": [4, 8]}, "round": {"mode": "trusted"}},
        "leave out adapter.ranks, or set round.mode = masked and method.name = nested",
    ),
    "ranks of a method for trusted rounds": (
        {"adapter": {"ranks": [4, 8]}, "round": {"mode": "trusted"}, "method": {"name": "flexlora"}},
        "leave out adapter.ranks, or set round.mode = masked and method.name = nested",
    ),
    "slices in trusted mode": (
        {"adapter": {"ranks": [4, 8]}, "round": {"mode": "trusted"}, "method": {"name": "nested"}},
        "leave out adapter.ranks and take fedavg, or set round.mode = masked (?!and)",
    ),
    "slices with noise": (
        {
            "adapter": {"ranks": [4, 8]},
            "method": {"name": "nested"},
            "privacy": {"noise_multiplier": 1.0},
            "encoding": {"max_weight": 1},
        },
        r"leave out adapter.ranks and take fedavg, or leave out \[privacy\] (?!and)",
    ),
    "ranks in many cohorts": (
        {"adapter": {"ranks": [4, 8]}, "round": {"cohorts": 2}},
        "leave out adapter.ranks, or set round.cohorts = 1 and method.name = nested",
    ),
    "slices without ranks": ({"method": {"name": "nested"}}, r"lists none: set adapter.ranks = \[4, 8\]"),
    "slices of rank 1": ({"method": {"name": "nested"}, "adapter": {"rank": 1}}, "none: take fedavg"),
    "ranks that do not end at the rank": (
        {"method": {"name": "nested"}, "adapter": {"ranks": [4, 6]}},
        r"rank = 8 is the largest: set ranks = \[4, 6, 8\]",
    ),
    "ranks above the rank": (
        {"method": {"name": "nested"}, "adapter": {"ranks": [16, 32]}},
        "is the largest: set rank = 32",
    ),
    "heads of unlike size": ({"method": {"name": "ravan", "heads": 3}}, "must divide adapter.rank = 8: set .* = 4"),
    "heads of a prime rank": (
        {"method": {"name": "ravan"}, "adapter": {"rank": 1}},
        "must divide adapter.rank = 1: take fed_sb",
    ),
    "another method's setting": ({"method": {"heads": 2}}, "heads belongs to method.name = ravan, not to fedavg"),
    "a sketch of a method without one": (
        {"method": {"sketch_rank": 8}},
        "sketch_rank belongs to fedit_rs and fedit_rs1, not to fedavg: leave it out",
    ),
    "probes of a method without a sketch": ({"method": {"name": "ravan", "sketch_probes": 8}}, "not to ravan"),
    "moments where there is no optimizer": (
        {"method": {"name": "fedkseed"}, "training": {"optimizer": "adamw_8bit"}},
        "how AdamW keeps its moments, and method.name = fedkseed has none; leave it out",
    ),
    "decay where there is no optimizer": (
        {"method": {"name": "fedkseed"}, "training": {"weight_decay": 0.01}},
        "set training.weight_decay = 0",
    ),
    "a pull where there is no gradient": (
        {"method": {"name": "fedkseed"}, "training": {"proximal": 0.01}},
        "set training.proximal = 0",
    ),
    "a least cohort above the cohort": (
        {"round": {"cohort_min": 5, "cohort_size": 4}},
        "no round could open: set cohort_size = 5",
    ),
    "a median of one": ({"round": {"combine": "median"}}, "5 cohorts or more.*or combine = weighted"),
    "a sum of two": ({"round": {"cohort_min": 2}}, "hide nobody; set cohort_min = 3"),
    "a bound on steps that are fixed": ({"training": {"local_steps": 5, "max_steps": 9}}, "bounds what epochs decide"),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_together_is_refused_with_the_reason(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        task(**tables)


def test_a_server_step_goes_with_factors_that_are_written_anew_in_some_rounds() -> None:
    told = task(method={"name": "fedsvd", "refactor_every": 2}, optimizer={"name": "nesterov"})
    assert not told.optimizer.plain


def test_without_the_new_tables_a_task_says_what_it_said_before() -> None:
    told = task().model_dump(mode="json")
    assert not {"optimizer", "selection"} & set(told)
    assert not {"proximal", "proximal_form", "max_steps"} & set(told["training"])


def test_an_operator_hears_that_few_rounds_leave_nothing_to_remember() -> None:
    assert "below 5 take fedavg" in optimizer_advice(task(optimizer={"name": "nesterov"}, round={"rounds": 4}))
    assert not optimizer_advice(task(optimizer={"name": "nesterov"}, round={"rounds": 5}))
    assert not optimizer_advice(task(optimizer={"learning_rate": 2.0}, round={"rounds": 1}))


def test_ranges_follow_from_the_bound_on_steps() -> None:
    steps = {"local_steps": 0, "max_steps": 20, "learning_rate": 1e-3, "schedule": "constant"}
    assert task(training=steps).value_range == pytest.approx(1.05 * 20e-3)
    assert task(training=steps, optimizer={"fednova": True}).value_range == pytest.approx(1.05e-3)


def test_a_ring_is_made_for_all_that_are_invited() -> None:
    assert RoundSpec(cohort_size=8, selection="resource_aware").most_clients == 10
    assert RoundSpec(cohort_size=8).most_clients == 8


def test_more_devices_must_be_free_where_some_will_not_join() -> None:
    policy = {"selection": "self", "cohort_min": 3, "cohort_size": 10}
    assert least_free(task(round=policy, selection={"join_share": 0.7})) == 7
    assert least_free(task(round=policy, selection={"join_share": 0.45})) == 10
    assert least_free(task(round={"cohort_min": 3, "cohort_size": 10})) == 3
