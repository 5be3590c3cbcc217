"""An evaluator's work: fetch what a round has made and what was before, compare their losses here, report them signed.

The rows and everything about them but losses, counts and the names of categories stay on this machine. Nothing is taken
on trust: the candidate is the server's signed word, and both adapters are fetched by the digests in it.
"""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from fedit_client.adapters.kept import TENSORS, build, check_adapter, most_bytes
from fedit_client.data import Record
from fedit_client.evaluation import CategoryLosses, EvaluationRequest
from fedit_client.hardware.device import DevicePlan
from fedit_client.membership.succession import PinnedDescriptor
from fedit_client.network.patience import Patience
from fedit_client.network.problems import NotReadyError
from fedit_client.network.transport import OnBytes, Transport, jittered
from fedit_client.training import OnProgress
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConsentError, MembershipError, ProblemType, ProtocolError, SecurityError
from fedit_protocol.evaluation import MOST_CATEGORIES, Candidate, CategoryLoss, EvaluationReport, reportable
from fedit_protocol.ids import Digest, client_id
from fedit_protocol.messages import BlobRef
from fedit_protocol.method_rules import TRAITS
from fedit_protocol.peft_folder import FACTORS, STATE
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.task import TaskDocument

_BEFORE: Final = "before"
_AFTER: Final = "after"
_LONGEST_NAME: Final = 64


class Evaluator(Protocol):
    """The seam to the model: losses of named adapters on the same rows."""

    async def evaluate(self, request: EvaluationRequest, on_progress: OnProgress) -> Mapping[str, CategoryLosses]:
        """Return the losses of each adapter of the request; raises DataError, DeviceError, ModelError."""
        ...


@dataclass(frozen=True)
class Comparison:
    """A candidate and its parent on this device's rows; losses are nats per token."""

    candidate: Candidate
    loss_before: float
    loss_after: float
    rows: int
    tokens: int
    categories: tuple[CategoryLoss, ...] = ()
    """The same for each category of the rows; empty unless there are two or more."""


@dataclass(frozen=True)
class Bench:
    """What candidates are compared on and with; none of it leaves."""

    document: TaskDocument
    base: Path
    plan: DevicePlan
    records: tuple[Record, ...] = field(repr=False)
    folder: Path
    """Where adapters lie while they are compared."""
    evaluator: Evaluator

    async def compare(self, candidate: Candidate, transport: Transport) -> Comparison:
        """Fetch both adapters, each checked against its digest, and return their losses."""
        files = {
            _BEFORE: await self._fetch(transport, candidate.parent_digest, candidate.parent_state),
            _AFTER: await self._fetch(transport, candidate.adapter_digest, candidate.adapter_state),
        }
        try:
            request = EvaluationRequest(self.document, self.base, files, self.records, self.plan)
            losses = await self.evaluator.evaluate(request, lambda _: None)
        finally:
            for file in files.values():
                shutil.rmtree(file.parent, ignore_errors=True)
        before, after = losses[_BEFORE], losses[_AFTER]
        return Comparison(
            candidate=candidate,
            loss_before=reportable(before.mean),
            loss_after=reportable(after.mean),
            rows=len(self.records) - after.skipped_rows,
            tokens=sum(after.tokens.values()),
            categories=by_category(before, after),
        )

    async def _fetch(self, transport: Transport, digest: Digest, state: BlobRef | None) -> Path:
        """Fetch an adapter, and what belongs to it, into a folder of its own."""
        quiet: OnBytes = lambda _done, _total: None  # noqa: E731 - a bar for each of four files is a flicker
        folder, layout = self.folder / digest.removeprefix("sha256:"), self.document.layout
        has_side = state is not None and TRAITS[self.document.task.method.name].side
        target = folder / (FACTORS if has_side else TENSORS)
        folder.mkdir(parents=True, exist_ok=True)
        await transport.download(digest, target, most_bytes(layout), quiet)
        check_adapter(target, layout)
        if self.document.lora is not None:
            await asyncio.to_thread(build, target, target, self.document)
        if state is not None:
            await transport.download(state.digest, folder / STATE, state.size, quiet)
        return target


def by_category(before: CategoryLosses, after: CategoryLosses) -> tuple[CategoryLoss, ...]:
    """Return the losses of each named category, those with the most tokens first; nothing below two of them."""
    names = [name for name in after.by_category if name and name in before.by_category and len(name) <= _LONGEST_NAME]
    shown = sorted(names, key=lambda name: (-after.tokens[name], name))[:MOST_CATEGORIES]
    if len(shown) < 2:
        return ()
    return tuple(
        CategoryLoss(
            name=name,
            loss_before=reportable(before.by_category[name]),
            loss_after=reportable(after.by_category[name]),
            tokens=after.tokens[name],
        )
        for name in shown
        if after.tokens[name]
    )


@dataclass
class Counter:
    """Where an evaluator gets candidates and hands in reports."""

    key: SigningKey
    transport: Transport
    pinned: PinnedDescriptor
    document: TaskDocument
    patience: Patience

    async def newest(self, after: int) -> Candidate | None:
        """Return the newest candidate behind round `after`, or None if there is none within one long poll.

        Raises MembershipError J005 if this device is no evaluator, ConsentError A003 for a changed task, SecurityError.
        """
        path = f"/v1/tasks/{self.document.task.id}/candidates/{after}"
        try:
            received = await self.patience.insist(lambda: self._asking(path))
        except NotReadyError:
            return None
        if read_envelope(received, Kind.CANDIDATE).signer != self.pinned.descriptor.server_key:
            await self.patience.insist(lambda: self.pinned.follow(self.transport))
        server = self.pinned.descriptor.server_key
        candidate = unseal(received, Kind.CANDIDATE, self._context, Candidate, signer=server)
        if candidate.task_id != self.document.task.id or candidate.round_no <= after:
            raise SecurityError(ProblemType.CONTEXT_MISMATCH, "the server shows a candidate that was not asked for")
        if candidate.task_digest != self.document.digest:
            raise ConsentError("the task changed since you agreed to it", code="A003", fix="fedit-client consent diff")
        return candidate

    async def wait(self, after: int) -> Candidate:
        """Return the newest candidate behind round `after`, however long it takes."""
        while True:
            candidate = await self.newest(after)
            if candidate is not None:
                return candidate
            await asyncio.sleep(jittered(1.0))  # a server that does not let a long poll wait is not hammered

    async def report(self, found: Comparison) -> bool:
        """Hand in the losses; False if the round was decided before. Raises MembershipError J005, SecurityError."""
        candidate = found.candidate
        report = EvaluationReport(
            task_id=candidate.task_id,
            round_id=candidate.round_id,
            adapter_digest=candidate.adapter_digest,
            parent_digest=candidate.parent_digest,
            loss_before=found.loss_before,
            loss_after=found.loss_after,
            rows=found.rows,
            tokens=found.tokens,
            categories=found.categories,
        )
        try:
            await self._hand_in(report)
        except ProtocolError as error:
            if error.problem is ProblemType.ROUND_FAILED:
                return False
            if error.problem is not ProblemType.MALFORMED or not report.categories:
                raise
            # A server of an earlier version does not know categories, and takes no field that it does not know.
            return await self.report(replace(found, categories=()))
        return True

    async def _hand_in(self, report: EvaluationReport) -> None:
        sealed = seal(self.key, Kind.EVALUATION, self._context, report)
        await self.patience.insist(lambda: self._telling(f"/v1/rounds/{report.round_id}/evaluation", sealed))

    async def _asking(self, path: str) -> bytes:
        with _refusals(self.key):
            return await self.transport.get(path)

    async def _telling(self, path: str, body: bytes) -> bytes:
        with _refusals(self.key):
            return await self.transport.post(path, body)

    @property
    def _context(self) -> bytes:
        return federation_context(self.pinned.descriptor.federation_id)


@contextmanager
def _refusals(key: SigningKey) -> Iterator[None]:
    """Say to a device that is no evaluator who can make it one."""
    try:
        yield
    except ProtocolError as error:
        if error.problem is not ProblemType.POLICY_REFUSED:
            raise
        raise MembershipError(
            "this device is no evaluator of its federation",
            code="J005",
            fix=f"ask the organiser: fedit-server evaluator add {client_id(key.public)[:12]}",
        ) from error
