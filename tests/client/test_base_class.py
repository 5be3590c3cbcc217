"""Which base class a device takes of several, why, and that it takes no other one without a yes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.config import DeviceSettings
from fedit_client.consent.agreements import renewed
from fedit_client.consent.changes import differences
from fedit_client.consent.terms import Consent, summarise
from fedit_client.hardware.base_class import ClassWishes, choose_class
from fedit_client.hardware.device import DevicePlan, plan
from fedit_client.hardware.ladder import too_little
from fedit_client.membership.joined import Membership
from fedit_client.membership.trust import PinnedBy
from fedit_client.records.journal import Journal
from fedit_client.records.payloads import decode_words, payload_lines
from fedit_client.rounds.preparation import Preparation, choose_device, unplanned
from fedit_client.running.standing import Standing
from fedit_client.training.room import plan_of
from fedit_client.training.trainer import plan_values
from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import DeviceError
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Offer
from fedit_protocol.metrics import CanaryLoss, ClientReport
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.effects import Persist, Record
from fedit_protocol.secagg.quantize import encode_update
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Quantization, TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation

from ..protocol.canaries import NF4_BF16, canary_task
from .test_device import LAPTOP, OLD_GPU, RTX_4060, document, with_gpu

NF4, BF16, INT8 = Quantization.NF4, Quantization.BF16, Quantization.INT8


def listing(*classes: Quantization, linear: int = 106_000_000) -> TaskDocument:
    """A task on a small base that lists these classes."""
    plain = document(linear=linear)
    base = plain.task.base.model_copy(update={"classes": classes, "quantization": classes[0]})
    return plain.model_copy(update={"task": plain.task.model_copy(update={"base": base})})


def runs(**fail: str) -> Any:
    """Plan in every class but those that fail with these words."""

    def attempt(base_class: Quantization) -> DevicePlan:
        if base_class in fail:
            raise DeviceError(fail[base_class], code="H003", where="here", fix="fedit-client fit")
        return replace(unplanned(listing(NF4)), quantization=base_class, reason="CPU")

    return attempt


CHOICES: Mapping[str, tuple[ClassWishes, dict[str, str], Quantization, str]] = {
    "the first that runs": (ClassWishes(), {}, NF4, "the first that the task lists"),
    "the next, with the reason": (ClassWishes(), {"nf4": "no library"}, BF16, "nf4: no library"),
    "int8 last": (ClassWishes(), {"nf4": "no", "bf16": "too large"}, INT8, "nf4: no; bf16: too large"),
    "not what the policy forbids": (ClassWishes(allowed=(BF16, INT8)), {}, BF16, "nf4 is not in your policy"),
    "the owner's setting": (ClassWishes(wanted=INT8), {}, INT8, "your setting device.base_class"),
    "the setting before the class joined with": (
        ClassWishes(wanted=INT8, joined=NF4), {}, INT8, "your setting device.base_class",
    ),
    "what was seen when joining": (ClassWishes(joined=BF16), {}, BF16, "the class that you joined with"),
    "anew, if it is listed no more": (
        ClassWishes(joined=Quantization.FP32), {}, NF4, "the first that the task lists",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wishes", "fails", "taken", "why"), CHOICES.values(), ids=CHOICES)
def test_a_device_takes_the_first_class_that_runs_and_says_why(
    wishes: ClassWishes, fails: dict[str, str], taken: Quantization, why: str
) -> None:
    found = choose_class(listing(NF4, BF16, INT8), wishes, runs(**fails))
    assert (found.quantization, found.class_reason) == (taken, why)
    assert found.reason == f"CPU; base in {taken}: {why}"
    assert taken not in found.other_classes


def test_no_class_that_runs_is_a_refusal_with_every_reason() -> None:
    with pytest.raises(DeviceError, match="no base class of the task runs here: nf4: no; bf16: too large") as no:
        choose_class(listing(NF4, BF16), ClassWishes(), runs(nf4="no", bf16="too large"))
    assert no.value.code == "H003"


def test_one_class_is_planned_as_ever() -> None:
    assert choose_class(document("bf16"), ClassWishes(), runs()).reason == "CPU"
    with pytest.raises(DeviceError, match=r"^too large$"):
        choose_class(document("bf16"), ClassWishes(), runs(bf16="too large"))


def test_a_setting_that_the_task_does_not_list_is_refused_and_not_passed_over() -> None:
    for wishes, words in (
        (ClassWishes(wanted=INT8), "the task lists nf4 and bf16"),
        (ClassWishes(wanted=NF4, allowed=(BF16,)), "of the task's nf4 and bf16 your policy allows bf16"),
    ):
        with pytest.raises(DeviceError, match=words) as refused:
            choose_class(listing(NF4, BF16), wishes, runs())
        assert (refused.value.code, refused.value.fix) == ("H070", "fedit-client set device.base_class=auto")


def test_a_class_that_does_not_fit_any_more_is_never_changed_in_silence() -> None:
    with pytest.raises(DeviceError, match="too large; the task also lists base class nf4") as asked:
        choose_class(listing(NF4, BF16), ClassWishes(joined=BF16), runs(bf16="too large"))
    assert (asked.value.code, asked.value.fix) == ("H071", "fedit-client set device.base_class=nf4")
    with pytest.raises(DeviceError) as refused:
        choose_class(listing(NF4, BF16), ClassWishes(joined=BF16), runs(bf16="too large", nf4="no"))
    assert refused.value.code == "H003"


def test_memory_that_runs_out_while_training_names_a_lighter_class() -> None:
    """The ladder's last rung: named, with the command that says yes, and not taken."""
    task = listing(NF4, BF16, linear=1_000_000_000)
    stands = replace(plan(task, with_gpu(RTX_4060), base_class=BF16), other_classes=(NF4, INT8))
    asked = too_little(task, stands)
    assert (asked.code, asked.fix) == ("H071", "fedit-client set device.base_class=nf4")
    lightest = replace(plan(task, with_gpu(RTX_4060), base_class=NF4), other_classes=(BF16, INT8))
    assert too_little(task, lightest).code == "H003"


def test_a_gpu_is_used_in_a_later_class_before_a_cpu_in_the_first() -> None:
    def on_the_gpu(*able: Quantization) -> Any:
        return lambda name: replace(runs()(name), needs_cpu_consent=name not in able)

    found = choose_class(listing(NF4, BF16), ClassWishes(), on_the_gpu(BF16))
    assert (found.quantization, found.class_reason) == (BF16, "nf4 runs on the CPU only")
    found = choose_class(listing(NF4, BF16), ClassWishes(), on_the_gpu())
    assert (found.quantization, found.needs_cpu_consent) == (NF4, True)
    found = choose_device(listing(BF16, INT8), with_gpu(OLD_GPU), DeviceSettings(), None)
    assert (found.device, found.quantization, found.needs_cpu_consent) == ("cpu", BF16, True)


def test_bf16_is_taken_if_it_fits() -> None:
    large = listing(BF16, INT8, linear=6_000_000_000)
    found = choose_device(large, LAPTOP, DeviceSettings(prefer="cpu"), None)
    assert found.quantization is INT8
    assert found.class_reason.startswith("bf16: out of memory even at micro-batch")


def test_a_plan_crosses_to_the_worker_with_its_classes() -> None:
    chosen = choose_device(listing(NF4, BF16), LAPTOP, DeviceSettings(prefer="cpu"), None)
    assert plan_of({**plan_values(chosen), "other_classes": ["bf16"]}) == chosen


def test_a_membership_remembers_the_class_that_was_shown() -> None:
    chosen = choose_device(listing(NF4, BF16), LAPTOP, DeviceSettings(prefer="cpu"), None)
    assert Preparation.seen(chosen, None) == {"trains_on": "cpu", "base_class": NF4}
    one = choose_device(document(), LAPTOP, DeviceSettings(prefer="cpu"), None)
    assert Preparation.seen(one, None) == {"trains_on": "cpu", "base_class": None}


def test_a_yes_to_a_list_keeps_the_class_that_was_the_only_one() -> None:
    old, new = document("bf16"), listing(NF4, BF16)
    federation = encode(MemoryFederation(3).descriptor)
    held = Membership(host="h", port=1, pinned_by=PinnedBy.INVITE, descriptor=federation, certificate=b"", log_head=b"",
                      label="", consent="t@1", document=encode(old), joined_at=0)  # fmt: skip
    assert renewed(held, encode(new), Consent("t@2", new.digest)).base_class is BF16
    assert renewed(held.model_copy(update={"base_class": NF4}), encode(new), Consent("t@2", "")).base_class is NF4


def test_status_says_how_the_base_is_held() -> None:
    told = Standing(True, False, device="auto", base_class="bf16", base_class_reason="your setting").lines()
    assert "device      auto, base in bf16 (your setting)" in told


def test_fit_says_the_class_and_why() -> None:
    chosen = choose_device(listing(NF4, BF16), LAPTOP, DeviceSettings(prefer="cpu"), None)
    assert chosen.class_words == "nf4: the first that the task lists"
    assert choose_device(document(), LAPTOP, DeviceSettings(prefer="cpu"), None).class_words == "nf4"


def test_consent_names_the_classes_and_what_is_in_clear() -> None:
    summary = summarise(canary_task(6, NF4_BF16), MemoryFederation(6).descriptor, Limits())
    assert summary.model.endswith("in nf4 or bf16")
    assert any("base class (nf4 or bf16)" in line for line in summary.leaves_in_clear)
    assert any("public row" in line and "nothing of your rows" in line for line in summary.leaves_masked)
    plain = summarise(listing(NF4, BF16), MemoryFederation(6).descriptor, Limits())
    assert not any("base class" in line for line in plain.leaves_in_clear)


def test_a_task_that_lists_more_classes_is_a_change_in_words() -> None:
    old, new = document(), listing(NF4, BF16)
    told = [change.line() for change in differences(old, new, MemoryFederation(3).descriptor, Limits())]
    assert "base classes that may meet: none → nf4, bf16" in told


def test_the_outbox_shows_the_canary_loss_of_ones_own_class() -> None:
    task = canary_task(6, NF4_BF16)
    ring, update = sum_specs(task)[0].ring, np.zeros(8, dtype=np.float32)
    words = encode_update(update, 1, ClientReport(9, 1.0, None), ring, bytes(32), CanaryLoss(BF16, 2.5))
    shown = decode_words(words, ring, task.layout)
    assert shown.report()["canary_loss bf16"] == 2.5
    assert "canary_loss bf16 2.5000" in payload_lines(shown)[1]
    without = decode_words(encode_update(update, 1, ClientReport(9, 1.0, None), ring, bytes(32)), ring, task.layout)
    assert "canary" not in payload_lines(without)[1]


def test_the_journal_knows_which_adapters_got_a_canary_loss(tmp_path: Path) -> None:
    sealed = MemoryFederation(6).offer(canary_task(6, NF4_BF16), ManualClock()())
    offer = decode(Offer, read_envelope(sealed, Kind.OFFER).body)
    journal = Journal(tmp_path / "journal")
    for kind in ("joined", "canary"):
        journal.persist(offer, Persist(Record(kind=kind, body=b"")), 1)
    for known in (journal, Journal(tmp_path / "journal")):
        assert known.last is not None
        assert known.last.canaries == {offer.adapter_digest}


def test_a_machine_without_a_gpu_is_planned_in_the_first_class() -> None:
    found = choose_device(listing(NF4, BF16), LAPTOP, DeviceSettings(), None)
    assert (found.quantization, found.needs_cpu_consent) == (NF4, True)
