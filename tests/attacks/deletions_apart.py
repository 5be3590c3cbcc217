"""The checks between a server and an authority that lives apart (SPEC, section 14), taken out one by one."""

from typing import Final

from .deletion import OFF, Deletion, P

_UPDATE, _DESK = "fedit_server/authority/update.py", "fedit_server/authority/desk.py"
_STORE, _WORKER, _LINK = (
    "fedit_server/storage/admissions.py",
    "fedit_server/authority/worker.py",
    "fedit_server/authority/link.py",
)
_AUDIT = P + "keylog_audit.py"
_UPDATES, _LIVES = "server/test_authority_updates.py::test_", "server/test_authority_apart.py::test_"
_WRONG = _UPDATES + "a_wrong_answer_is_refused_whole_and_the_honest_one_is_taken_afterwards"
_AUDITED = "protocol/test_authority.py::test_an_audit_names_the_first_entry_that_does_not_follow"
_SHOWN = _UPDATES + "an_authority_sends_nothing_to_a_server_that_shows_another_log"
_MEETS = "integration/test_authority_apart.py::test_an_authority_meets_only_the_server_that_it_was_told"

APART: Final = (
    Deletion(
        "S1", "the authority signed the update", _DESK, "                signer=self.descriptor.authority_key,\n", "",
        _UPDATES + "an_update_by_anybody_else_is_refused",
    ),
    Deletion(
        "S1", "the queue is the authority's", _DESK, "if caller != self.descriptor.authority_key:", OFF,
        _LIVES + "the_queue_is_for_the_authority_alone",
    ),
    Deletion(
        "S1", "an update leaves no gap", _UPDATE, "if update.start > size:", OFF, _WRONG,
    ),
    Deletion(
        "S1", "an update does not fork the log", _UPDATE, "if (line.entry, line.head) != (ours.entry, ours.head):", OFF,
        _UPDATES + "a_fork_of_what_devices_have_seen_is_refused",
    ),
    Deletion(
        "S1", "a certificate stands in the log", _UPDATE,
        "auditor.leaves[index] != log_leaf(certificate)", "False", _WRONG,
    ),
    Deletion("S1", "a certificate is in force", _UPDATE, "certificate.serial in auditor.revoked", "False", _WRONG),
    Deletion(
        "S1", "a grant fits its request", _STORE,
        "if answer.problem is None and not await _is_borne_out(db, row, answer):", OFF,
        _UPDATES + "a_grant_that_does_not_fit_the_request_is_refused",
    ),
    Deletion(
        "S1", "an answer is final", _STORE,
        "if (_answer(row).serial, _answer(row).problem) != (answer.serial, answer.problem):", OFF,
        _UPDATES + "an_answer_is_not_taken_back",
    ),
    Deletion(
        "S1", "a blocked device stays out", _STORE, "elif state not in (ClientState.ACTIVE, ClientState.BLOCKED):",
        "elif state != ClientState.ACTIVE:",
        _LIVES + "a_blocked_device_stays_out_although_the_authority_admits_it_anew",
    ),
    Deletion(
        "S1", "guesses through the relay are counted", _DESK,
        "if address is not None and answer.problem in WRONG_CODE:", OFF,
        "server/test_authority_lockout.py::test_guessing_codes_through_the_relay_locks_the_address",
    ),
    Deletion(
        "C7", "a head says what its log is", _AUDIT,
        "if stated != (self.federation_id, self.size, self.root, self._revoked_digest):", OFF, _AUDITED,
    ),
    Deletion(
        "C7", "the authority signed every head", _AUDIT, "LogHead, signer=self.authority_key)", "LogHead)", _AUDITED,
    ),
    Deletion("C7", "entries make sense", _AUDIT, "if objection := self._objection(entry):", OFF, _AUDITED),
    Deletion("C7", "the server's log is not longer", _WORKER, "if shown > own:", OFF, _SHOWN),
    Deletion(
        "C7", "the server's log is not shortened", _WORKER,
        "if shown < self.server.confirmed and not self.resend:", OFF, _SHOWN,
    ),
    Deletion(
        "C7", "the server's log is not another", _WORKER,
        'if queue.log_head != (newest[0].head if newest else b""):', OFF, _SHOWN,
    ),
    Deletion("C1", "the pin of the authority's server", _LINK, "if seen != pin and not vouched:", OFF, _MEETS),
    Deletion(
        "C1", "a server of this authority", _LINK,
        "named != (card.federation_id, card.authority_key, card.authority_seal_key)", "False", _MEETS,
    ),
    Deletion(
        "C1", "a successor of the authority's server", _LINK,
        "return check_successor(pin, shown, decode(Successions, await wire.get(_SUCCESSIONS_PATH))) is not None",
        "return True",
        _UPDATES + "a_servers_new_key_is_followed_if_the_old_one_signed_for_it",
    ),
)  # fmt: skip
