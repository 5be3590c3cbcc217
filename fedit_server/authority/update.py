"""Is this update what the authority may say? Its log continues ours, and its certificates are in it."""

from collections.abc import Sequence

from fedit_protocol.authority import AuthorityUpdate, IssuedCertificate
from fedit_protocol.enrollment import FederationDescriptor, check_certificate, log_leaf
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.keylog import LogAction, leaf_hash
from fedit_protocol.keylog_audit import LogAuditor
from fedit_server.storage.admissions import Admitted, Progress
from fedit_server.storage.key_log import LogLine


def checked_progress(
    update: AuthorityUpdate,
    stored: Sequence[LogLine],
    auditor: LogAuditor,
    descriptor: FederationDescriptor,
    now_s: int,
) -> Progress:
    """Return what an update adds to the log that `auditor` has followed; its own signature is verified.

    `stored` is that log from the update's start on. Lines that are stored already are skipped if they are the same.
    Raises SecurityError (context-mismatch) for a fork, a gap, a head that says something else than the entries, or a
    certificate that its log does not bear out.
    """
    size = auditor.size
    if update.start > size:
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, f"it begins at entry {update.start}, and this log has {size}")
    known = min(size - update.start, len(update.lines))
    for line, ours in zip(update.lines[:known], stored[:known], strict=True):
        if (line.entry, line.head) != (ours.entry, ours.head):
            raise SecurityError(ProblemType.CONTEXT_MISMATCH, "it forks the log that was shown to devices")
    entries = [auditor.take(line.entry, line.head) for line in update.lines[known:]]
    lines = [
        LogLine(line.entry, leaf_hash(entry), line.head)
        for line, entry in zip(update.lines[known:], entries, strict=True)
    ]
    revoked = [entry.serial for entry in entries if entry.action is LogAction.REVOKE]
    admitted = [_admitted(issued, auditor, descriptor, now_s) for issued in update.certificates]
    return Progress(size, lines, revoked, admitted, update.answers)


def _admitted(issued: IssuedCertificate, auditor: LogAuditor, descriptor: FederationDescriptor, now_s: int) -> Admitted:
    certificate = check_certificate(issued.certificate, descriptor, now_s)
    index = certificate.log_index
    if index >= auditor.size or auditor.leaves[index] != log_leaf(certificate) or certificate.serial in auditor.revoked:
        raise SecurityError(ProblemType.CONTEXT_MISMATCH, "a certificate came that its log does not bear out")
    return Admitted(issued.certificate, certificate, issued.label)
