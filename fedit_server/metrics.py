"""What Prometheus may know: counts, times and sizes of rounds and requests, never anything of one device.

The families are those of `FAMILIES`. Label values come from closed sets (stages, outcomes, problem types, route
templates) or from the operator (task ids). Each process counts for itself: replicas are told apart by the scraper.
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from fedit_protocol.errors import ProblemType
from fedit_protocol.version import PROTOCOL_NAME, PROTOCOL_VERSION

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

FAMILIES: Final = (
    "fedit_build_info",
    "fedit_rounds_total",
    "fedit_round_duration_seconds",
    "fedit_round_stage_duration_seconds",
    "fedit_cohort_size",
    "fedit_clients_enrolled",
    "fedit_clients_connected",
    "fedit_secagg_dropouts_total",
    "fedit_secagg_aborts_total",
    "fedit_upload_bytes_total",
    "fedit_download_bytes_total",
    "fedit_rejects_total",
    "fedit_eval_loss",
    "fedit_aggregation_error_ratio",
    "fedit_gradient_diversity",
    "fedit_privacy_epsilon",
    "fedit_http_requests_total",
    "fedit_http_request_duration_seconds",
    "fedit_event_loop_lag_seconds",
    "fedit_disk_free_bytes",
    "fedit_certificate_expiry_timestamp_seconds",
    "fedit_last_backup_timestamp_seconds",
)
"""Every family that a scrape may show (EXPERIENCE, section 9), by the name that a query uses."""

OTHER: Final = "other"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBLEMS: Final = frozenset(problem.value.rpartition(":")[2] for problem in ProblemType)
_ROUND_S: Final = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
_REQUEST_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

disable_created_metrics()  # type: ignore[no-untyped-call]  # else a second family beside every counter


def problem_name(problem: str) -> str:
    """Return the short name of a problem type, `other` for anything that is none: a label has few values."""
    name = problem.rpartition(":")[2]
    return name if name in _PROBLEMS else OTHER


class Metrics:
    """The figures of one process, in a registry of their own. Each verb is told what happened, once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        Info("fedit_build", "Version of the program and of the protocol.", registry=own).info(_build())
        self._rounds = Counter("fedit_rounds", "Rounds that ended.", ["task", "outcome"], registry=own)
        self._round_s = Histogram(
            "fedit_round_duration_seconds", "From opening a round to its end.", ["task"], buckets=_ROUND_S, registry=own
        )
        self._stage_s = Histogram(
            "fedit_round_stage_duration_seconds", "How long a cohort stood in a stage.", ["stage"], buckets=_ROUND_S,
            registry=own,
        )  # fmt: skip
        self._cohort = Gauge("fedit_cohort_size", "Devices invited to the newest round.", ["task"], registry=own)
        self.clients_enrolled = Gauge("fedit_clients_enrolled", "Devices that may take part.", registry=own)
        self.clients_connected = Gauge("fedit_clients_connected", "Devices that wait in a check-in now.", registry=own)
        self._dropouts = Counter(
            "fedit_secagg_dropouts", "Devices that were gone when a stage ended.", ["stage"], registry=own
        )
        self._aborts = Counter(
            "fedit_secagg_aborts", "Devices that gave up, by the problem they named.", ["reason"], registry=own
        )
        self._up = Counter("fedit_upload_bytes", "Bytes of updates taken in.", registry=own)
        self._down = Counter("fedit_download_bytes", "Bytes of adapters sent.", registry=own)
        self._rejects = Counter(
            "fedit_rejects", "Requests answered with a problem, by its type.", ["reason"], registry=own
        )
        self._loss = Gauge(
            "fedit_eval_loss", "Mean loss over the newest round's cohort.", ["task", "split"], registry=own
        )
        self._error = Gauge(
            "fedit_aggregation_error_ratio",
            "Share of the newest audited round's change that is lost: by the average, and once corrected.",
            ["task", "after"], registry=own,
        )  # fmt: skip
        self._diversity = Gauge(
            "fedit_gradient_diversity", "How unlike the newest round's updates were; 1: all alike.", ["task"],
            registry=own,
        )  # fmt: skip
        self._epsilon = Gauge(
            "fedit_privacy_epsilon", "Epsilon that a task's rounds have spent.", ["task"], registry=own
        )
        self._requests = Counter(
            "fedit_http_requests", "Requests answered.", ["route", "method", "status"], registry=own
        )
        self._request_s = Histogram(
            "fedit_http_request_duration_seconds", "From a request's head to the end of its answer, waiting included.",
            ["route"], buckets=_REQUEST_S, registry=own,
        )  # fmt: skip
        self._lag = Histogram(
            "fedit_event_loop_lag_seconds",
            "How much later than asked the event loop wakes.",
            buckets=_LAG_S,
            registry=own,
        )
        self.disk_free_bytes = Gauge("fedit_disk_free_bytes", "Free space under the data folder.", registry=own)
        self.certificate_expiry = Gauge(
            "fedit_certificate_expiry_timestamp_seconds", "When the served certificate ends.", registry=own
        )
        self.last_backup = Gauge(
            "fedit_last_backup_timestamp_seconds", "When the last backup was made; 0: never.", registry=own
        )

    def round_ended(self, task: str, outcome: str, seconds: float) -> None:
        """A round ended: committed, failed or held, `seconds` after it was opened."""
        self._rounds.labels(task, outcome).inc()
        self._round_s.labels(task).observe(max(0.0, seconds))

    def stage_ended(self, stage: str, seconds: float, dropouts: int) -> None:
        """A cohort left a stage, in which so many of those who were awaited did not come."""
        self._stage_s.labels(stage).observe(max(0.0, seconds))
        self._dropouts.labels(stage).inc(max(0, dropouts))

    def cohort_formed(self, task: str, size: int) -> None:
        """A round was opened for so many devices."""
        self._cohort.labels(task).set(size)

    def aborted(self, problem: str) -> None:
        """A device gave up, because of this problem as it says."""
        self._aborts.labels(problem_name(problem)).inc()

    def uploaded(self, size: int) -> None:
        """So many bytes of an update came in."""
        self._up.inc(size)

    def downloaded(self, size: int) -> None:
        """So many bytes of a blob went out."""
        self._down.inc(size)

    def rejected(self, problem: str) -> None:
        """A request was answered with a problem of this type."""
        self._rejects.labels(problem_name(problem)).inc()

    def evaluated(self, task: str, split: str, loss: float) -> None:
        """The newest round's mean loss, over the rows of `split`: train, held_out, canary_CLASS, domain_DOMAIN."""
        self._loss.labels(task, split).set(loss)

    def audited(self, task: str, averaged: float, corrected: float | None) -> None:
        """Averaging lost this share of an audited round, and that is left once corrected; None: it was not."""
        self._error.labels(task, "average").set(averaged)
        if corrected is None:
            self._error.remove(task, "correction")
        else:
            self._error.labels(task, "correction").set(corrected)

    def differed(self, task: str, diversity: float) -> None:
        """The newest round's updates had this gradient diversity."""
        self._diversity.labels(task).set(diversity)

    def spent(self, task: str, epsilon: float) -> None:
        """What a task's rounds have spent of the privacy budget."""
        self._epsilon.labels(task).set(epsilon)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request to this route template was answered."""
        self._requests.labels(route, method if method in METHODS else OTHER, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def lagged(self, seconds: float) -> None:
        """The event loop woke so much later than it was asked to."""
        self._lag.observe(max(0.0, seconds))

    def render(self) -> bytes:
        """Return everything in the text format that Prometheus scrapes, as `CONTENT_TYPE` says."""
        return generate_latest(self.registry)


def _build() -> dict[str, str]:
    try:
        program = version("fedit")
    except PackageNotFoundError:
        program = "unknown"
    spoken = f"{PROTOCOL_NAME} {PROTOCOL_VERSION[0]}.{PROTOCOL_VERSION[1]}"
    return {"version": program, "protocol": spoken, "python": platform.python_version()}
