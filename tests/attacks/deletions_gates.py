"""The gates of a step, and who may speak about it, as source text to take out (`deletions`)."""

from typing import Final

from .deletion import OFF, Deletion, P

_GATES, _DESK = "fedit_server/rounds/gates.py", "fedit_server/rounds/evaluations.py"
_STEPS, _REPORTS = "server/test_steps.py::test_", "server/test_evaluations.py::test_"
_HELD, _EVALUATOR = "server/test_held_rounds.py::test_", "client/test_comparing.py::test_"
_FORGED = _EVALUATOR + "a_candidate_that_the_server_did_not_sign_for_this_question_is_an_alarm"

GATES: Final = (
    Deletion(
        "S8", "a step of numbers", _GATES, "if not np.isfinite(after).all():", OFF,
        _STEPS + "s8_a_step_beyond_a_gate_is_rejected",
    ),
    Deletion(
        "S8", "a step within the gates", _GATES, "if allowed and value > allowed", "if False",
        _STEPS + "s8_a_step_beyond_a_gate_is_rejected",
    ),
    Deletion(
        "S8", "a gate that does not hold rejects", _GATES, "if name not in gates.hold:", OFF,
        _HELD + "a_gate_that_holds_does_not_excuse_one_that_rejects",
    ),
    Deletion(
        "S8", "a loss within the ratio", _GATES, "if gates.max_loss_ratio and worse is not None:", OFF,
        _HELD + "what_becomes_of_a_held_step",
    ),
    Deletion(
        "S8", "evaluators only", _DESK,
        "if client not in await self.coordinator.services.store.candidates.evaluators():", OFF,
        _REPORTS + "a_device_that_is_no_evaluator_neither_sees_nor_says_anything",
    ),
    Deletion(
        "S8", "enrolled evaluators only", _DESK,
        "await self.doorkeeper.enrolled(IdentityKey(bytes.fromhex(reporter)))", "pass",
        _REPORTS + "a_stranger_and_a_dismissed_or_revoked_evaluator_are_refused",
    ),
    Deletion(
        "S8", "the evaluator's signature", _DESK,
        "report = unseal(received, Kind.EVALUATION, self._context, EvaluationReport)",
        'report = EvaluationReport.model_validate(__import__("cbor2").loads(read_envelope(received,'
        " Kind.EVALUATION).body))",
        _REPORTS + "a_report_that_another_key_signed_is_refused",
    ),
    Deletion(
        "S8", "a report about this step", P + "evaluation.py",
        "if told != (candidate.task_id, candidate.round_id, candidate.adapter_digest, candidate.parent_digest):", OFF,
        _REPORTS + "a_report_about_something_else_is_refused",
    ),
    Deletion(
        "S8", "one report each", "fedit_server/storage/candidates.py", "elif known != evaluation.envelope:",
        "elif False:", _REPORTS + "a_report_is_taken_once",
    ),
    Deletion(
        "S8", "the server's signature on a candidate", "fedit_client/evaluation/comparing.py",
        "Candidate, signer=server)", "Candidate)", _FORGED,
    ),
    Deletion(
        "S8", "the candidate that was asked for", "fedit_client/evaluation/comparing.py",
        "if candidate.task_id != self.document.task.id or candidate.round_no <= after:", OFF, _FORGED,
    ),
)  # fmt: skip
