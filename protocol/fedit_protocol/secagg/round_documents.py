"""The documents that a cohort's members read: signed by the server, the same bytes at every call."""

import hashlib

from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import Inbox, InboxItem, Receipt
from fedit_protocol.secagg.round_state import RoundState
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Kind, SigningKey, seal


class RoundDocuments:
    """What of a round's state may be read, and by whom; raises ProtocolError (not-ready) before it is there."""

    def __init__(self, state: RoundState, key: SigningKey) -> None:
        self._state = state
        self._key = key
        self.offer = state.offer

    def roster(self, reader: IdentityKey) -> bytes:
        """Return the signed roster; raises ProtocolError (not-ready) before it is frozen."""
        return self._document("roster", reader)

    def inbox(self, reader: IdentityKey) -> bytes:
        """Return the signed shares for one member."""
        self._document("roster", reader)
        if self._state.stage in (Stage.ADVERTISE_KEYS, Stage.SHARE_KEYS):
            raise ProtocolError(ProblemType.NOT_READY, "the inbox is not published yet")
        roster = self._state.roster
        holder = roster.index(reader)
        items = tuple(
            InboxItem(
                dealer=dealer,
                ciphertext=shares.ciphertexts[holder - (holder > dealer)],  # a dealer's list skips the dealer
                leaves=shares.leaves[holder],
            )
            for dealer, (_, shares) in sorted(self._state.shares.items())
            if dealer != holder
        )
        return seal(self._key, Kind.INBOX, roster.context, Inbox(items=items))

    def sharers(self, reader: IdentityKey) -> bytes:
        """Return the signed set U2."""
        return self._document("sharers", reader)

    def receipt(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed receipt of a stored upload."""
        self._check_reader(reader)
        index = self._state.roster.index(reader)
        wanted = self._state.sums[sum_index - 1] if sum_index <= len(self._state.sums) else None
        if wanted is None or index not in wanted.uploads:
            raise ProtocolError(ProblemType.NOT_READY, "no upload of this device is stored")
        header = hashlib.sha256(wanted.uploads[index]).digest()
        return seal(self._key, Kind.RECEIPT, wanted.context, Receipt(header=header))

    def survivors(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed set U3 with its evidence; there is one per sum, ever (S4)."""
        return self._sum_document("survivors", reader, sum_index)

    def confirmations(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the members' signatures on U3, in a strict round."""
        if not self.offer.cohort.strict:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "this round has no confirmations")
        return self._sum_document("confirmations", reader, sum_index)

    def second_input(self, reader: IdentityKey) -> bytes:
        """Return what the second sum depends on; raises ProtocolError (too-late) if there will be no second sum."""
        if len(self.offer.sums) < 2:
            raise ProtocolError(ProblemType.STAGE_MISMATCH, "this round has one sum")
        if self._state.second_given_up and "second" not in self._state.documents:
            raise ProtocolError(ProblemType.TOO_LATE, f"no second sum: {self._state.second_given_up}")
        return self._document("second", reader)

    def _sum_document(self, name: str, reader: IdentityKey, sum_index: int) -> bytes:
        self._check_reader(reader)
        if sum_index > len(self.offer.sums):
            raise ProtocolError(ProblemType.STAGE_MISMATCH, f"this round has no sum {sum_index}")
        if sum_index == 2 and self._state.second_given_up:
            raise ProtocolError(ProblemType.TOO_LATE, f"no second sum: {self._state.second_given_up}")
        found = self._state.sums[sum_index - 1].documents if sum_index <= len(self._state.sums) else {}
        if name not in found:
            raise ProtocolError(ProblemType.NOT_READY, f"the {name} of this round are not fixed yet")
        return found[name]

    def _document(self, name: str, reader: IdentityKey) -> bytes:
        self._check_reader(reader)
        if name not in self._state.documents:
            raise ProtocolError(ProblemType.NOT_READY, f"the {name} of this round are not fixed yet")
        return self._state.documents[name]

    def _check_reader(self, reader: IdentityKey) -> None:
        """Only members read a round's documents; one that failed says so to everybody who waits."""
        if self._state.failure:
            raise ProtocolError(ProblemType.ROUND_FAILED, self._state.failure.reason)
        if reader not in self._state.joins:
            raise SecurityError(ProblemType.NOT_IN_COHORT, "this device is not in the cohort")
        if self._state.frozen_roster is not None:
            self._state.roster.index(reader)
