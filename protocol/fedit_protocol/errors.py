"""Every error that FedIT raises, and the closed list of problems that travel on the wire.

    FeditError                   what happened, where, and the one command that helps
    ├── ConfigError              C  a setting or a command line is wrong; names the setting and its source
    ├── MembershipError          J  this device has not joined, or has joined already
    ├── TransportError           N  the network failed; may be retried
    ├── ModelError               M  base model files are absent, or are not the pinned ones
    ├── ConsentError             A  the owner has not agreed, or has declined
    ├── DeviceError              H  this machine cannot do it
    ├── DataError                D  a row or a file; names file and line
    ├── TaskRefusedError         K  the task lies outside the owner's limits
    ├── StorageError             S  the store, the disk, the data folder
    ├── EvaluationError          V  results that cannot be compared, a judge that cannot be asked
    ├── FleetError               F  many virtual clients cannot be set up, or cannot go on
    └── ProtocolError            T  a message broke the rules; carries one ProblemType
        └── SecurityError        T  signature, digest, replay, pin: never retried

A wrong call order inside one process is a bug and raises RuntimeError instead.
"""

from enum import StrEnum
from typing import Final

_PREFIX: Final = "urn:fedit:error:"

EXIT_CODES: Final[dict[str, int]] = {
    "X": 1,  # internal
    "U": 2,  # usage
    "C": 3,  # configuration
    "J": 4,  # not joined
    "N": 5,  # network
    "M": 5,  # model files
    "T": 6,  # trust or authorisation
    "A": 7,  # consent needed or declined
    "H": 8,  # hardware
    "D": 9,  # data
    "P": 10,  # paused by policy
    "K": 11,  # task refused
    "S": 12,  # server store
    "V": 13,  # evaluation and judge
    "F": 14,  # a fleet of virtual clients
}
"""Family letter of an error code → exit status of the commands (EXPERIENCE, section 2)."""

LATER: Final = 75
TRY_LATER: Final = frozenset({"N009", "N010", "N012", "V013"})
"""Nothing is wrong here and nothing is lost: the same command later may succeed (75: sysexits' TEMPFAIL)."""


def exit_status(code: str) -> int:
    """Return the exit status of an error code: 75 where trying later is all that helps, else by its first letter."""
    return LATER if code in TRY_LATER else EXIT_CODES[code[0]]


class ProblemType(StrEnum):
    """What can go wrong on the wire, as RFC 9457 problem types; stable once released."""

    MALFORMED = _PREFIX + "malformed"
    TOO_LARGE = _PREFIX + "too-large"
    VERSION_MISMATCH = _PREFIX + "version-mismatch"
    BAD_SIGNATURE = _PREFIX + "bad-signature"
    CLOCK_SKEW = _PREFIX + "clock-skew"
    NOT_ENROLLED = _PREFIX + "not-enrolled"
    INVITE_REFUSED = _PREFIX + "invite-refused"
    INVITE_EXPIRED = _PREFIX + "invite-expired"
    INVITE_USED = _PREFIX + "invite-used"
    RATE_LIMITED = _PREFIX + "rate-limited"
    UNKNOWN_TASK = _PREFIX + "unknown-task"
    UNKNOWN_ROUND = _PREFIX + "unknown-round"
    UNKNOWN_BLOB = _PREFIX + "unknown-blob"
    NOT_IN_COHORT = _PREFIX + "not-in-cohort"
    STAGE_MISMATCH = _PREFIX + "stage-mismatch"
    NOT_READY = _PREFIX + "not-ready"
    TOO_LATE = _PREFIX + "too-late"
    CONFLICT = _PREFIX + "conflict"
    KEY_REFUSED = _PREFIX + "key-refused"
    CONTEXT_MISMATCH = _PREFIX + "context-mismatch"
    DIGEST_MISMATCH = _PREFIX + "digest-mismatch"
    OFFSET_MISMATCH = _PREFIX + "offset-mismatch"
    ROUND_FAILED = _PREFIX + "round-failed"
    POLICY_REFUSED = _PREFIX + "policy-refused"
    ENCODING_REFUSED = _PREFIX + "encoding-refused"
    SURVIVORS_REFUSED = _PREFIX + "survivors-refused"
    STORE_FULL = _PREFIX + "store-full"
    INTERNAL = _PREFIX + "internal"

    @property
    def title_text(self) -> str:
        """The name in words, for the `title` of a problem document."""
        return self.value.removeprefix(_PREFIX).replace("-", " ")


class FeditError(Exception):
    """The root: a sentence without full stop, a code, optionally where it happened and the one command that helps.

    `again` are the options with which the same command would have worked, `""` for none, and one line for each choice;
    a program with a command line says them as a fix, in the person's own words. `fix` is for all others.
    """

    default_code = "X001"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        where: str | None = None,
        fix: str | None = None,
        again: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.where = where
        self.fix = fix
        self.again = again

    @property
    def exit_code(self) -> int:
        """The exit status that a command ends with."""
        return exit_status(self.code)


class ConfigError(FeditError):
    """A setting, a task file or a command line is wrong; the message names the setting and where it came from."""

    default_code = "C001"


class MembershipError(FeditError):
    """This device has not joined a federation, or joined one already."""

    default_code = "J001"


class TransportError(FeditError):
    """The network or the far side failed in a way that a retry may cure."""

    default_code = "N001"


class ModelError(FeditError):
    """Base model files are absent or are not those that the task pins."""

    default_code = "M001"


class ConsentError(FeditError):
    """The owner has not agreed to this task, or has declined it."""

    default_code = "A001"


class DeviceError(FeditError):
    """This machine cannot do what the task asks."""

    default_code = "H001"


class DataError(FeditError):
    """A file or a row cannot be used; `where` names the file and the line."""

    default_code = "D001"


class TaskRefusedError(FeditError):
    """The offered task or round lies outside the owner's limits."""

    default_code = "K001"


class StorageError(FeditError):
    """The store, the disk or the data folder failed."""

    default_code = "S001"


class EvaluationError(FeditError):
    """Results do not belong together, a judge cannot be asked or believed, or a package for it is missing."""

    default_code = "V001"


class FleetError(FeditError):
    """Virtual clients cannot be set up as asked, or cannot go on."""

    default_code = "F001"


class ProtocolError(FeditError):
    """A message broke the rules of SPEC.md; carries exactly one ProblemType."""

    default_code = "T010"

    def __init__(
        self,
        problem: ProblemType,
        message: str,
        *,
        code: str | None = None,
        where: str | None = None,
        fix: str | None = None,
        again: str | None = None,
    ) -> None:
        super().__init__(message, code=code, where=where, fix=fix, again=again)
        self.problem = problem


class SecurityError(ProtocolError):
    """A signature, a digest, a pin or a replay: something that an honest far side never sends. Never retried."""

    default_code = "T011"
