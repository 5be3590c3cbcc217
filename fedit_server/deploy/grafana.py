"""A Grafana dashboard and Prometheus alert rules over the families of `metrics`; nothing in them names a device."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WIDE, _HIGH, _COLUMNS = 8, 7, 3


@dataclass(frozen=True)
class Panel:
    """One chart: what it is called, its unit as Grafana names it, its queries with their legends."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    says: str = ""


@dataclass(frozen=True)
class Alert:
    """One rule: when it is true for so long, somebody should look; `does` is the command that tells more."""

    name: str
    when: str
    lasts: str
    severity: str
    says: str
    does: str


_TASK: Final = '{task=~"$task"}'


def _quantile(share: float, family: str, by: str = "", over: str = "5m", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket{where}[{over}])))"


def _an_hour(family: str, by: str) -> str:
    return f"sum by ({by}) (increase({family}[1h]))"


_ROUND, _STAGE = "fedit_round_duration_seconds", "fedit_round_stage_duration_seconds"
_STAGE_MEAN: Final = f"sum by (stage) (rate({_STAGE}_sum[6h])) / sum by (stage) (rate({_STAGE}_count[6h]))"

PANELS: Final = (
    Panel("Rounds an hour", "short", [(_an_hour(f"fedit_rounds_total{_TASK}", "outcome"), "{{outcome}}")]),
    Panel(
        "Length of a round",
        "s",
        [
            (_quantile(0.5, _ROUND, over="6h", where=_TASK), "half"),
            (_quantile(0.95, _ROUND, over="6h", where=_TASK), "95 %"),
        ],
    ),
    Panel("Length of each stage, mean", "s", [(_STAGE_MEAN, "{{stage}}")]),
    Panel("Devices in the newest round", "short", [(f"max by (task) (fedit_cohort_size{_TASK})", "{{task}}")]),
    Panel(
        "Devices",
        "short",
        [("max(fedit_clients_enrolled)", "enrolled"), ("sum(fedit_clients_connected)", "waiting for a round")],
    ),
    Panel("Dropouts an hour", "short", [(_an_hour("fedit_secagg_dropouts_total", "stage"), "{{stage}}")]),
    Panel("Devices that gave up", "short", [(_an_hour("fedit_secagg_aborts_total", "reason"), "{{reason}}")]),
    Panel("Loss", "short", [(f"max by (task, split) (fedit_eval_loss{_TASK})", "{{task}} {{split}}")]),
    Panel(
        "Lost by averaging",
        "percentunit",
        [(f"max by (task, after) (fedit_aggregation_error_ratio{_TASK})", "{{task}}, after the {{after}}")],
        "Share of the change of the newest round that was audited.",
    ),
    Panel(
        "Gradient diversity",
        "short",
        [(f"max by (task) (fedit_gradient_diversity{_TASK})", "{{task}}")],
        "1 where all devices sent the same, about their number where each went its own way.",
    ),
    Panel("Epsilon spent", "short", [(f"max by (task) (fedit_privacy_epsilon{_TASK})", "{{task}}")]),
    Panel(
        "Updates and adapters",
        "Bps",
        [("sum(rate(fedit_upload_bytes_total[5m]))", "up"), ("sum(rate(fedit_download_bytes_total[5m]))", "down")],
    ),
    Panel("Requests", "reqps", [("sum by (status) (rate(fedit_http_requests_total[5m]))", "{{status}}")]),
    Panel(
        "Time of requests, 99 %",
        "s",
        [(_quantile(0.99, "fedit_http_request_duration_seconds", "route"), "{{route}}")],
        "Check-ins and documents wait on purpose: a long poll ends after 25 s.",
    ),
    Panel("Refusals", "reqps", [("sum by (reason) (rate(fedit_rejects_total[5m]))", "{{reason}}")]),
    Panel(
        "Event loop lag, 99 %",
        "s",
        [(_quantile(0.99, "fedit_event_loop_lag_seconds", "instance"), "{{instance}}")],
    ),
    Panel("Free disk", "bytes", [("min by (instance) (fedit_disk_free_bytes)", "{{instance}}")]),
    Panel("Certificate ends in", "s", [("min(fedit_certificate_expiry_timestamp_seconds) - time()", "certificate")]),
    Panel("Since the last backup", "s", [("time() - (max(fedit_last_backup_timestamp_seconds) > 0)", "backup")]),
    Panel("Version", "short", [("count by (version, protocol) (fedit_build_info)", "{{version}}, {{protocol}}")]),
)

ALERTS: Final = (
    Alert("FeditDown", 'up{job="fedit"} == 0', "2m", "page", "a FedIT server cannot be scraped", "fedit-server health"),
    Alert(
        "FeditRoundsFail",
        'sum by (task) (increase(fedit_rounds_total{outcome="failed"}[6h])) >= 3',
        "0m",
        "ticket",
        "three rounds of {{ $labels.task }} failed within six hours",
        "fedit-server round list",
    ),
    Alert(
        "FeditManyDropouts",
        f"sum(increase(fedit_secagg_dropouts_total[6h])) > sum(increase({_STAGE}_count[6h])) > 10",
        "30m",
        "ticket",
        "more than one device drops out of each stage",
        "fedit-server round list",
    ),
    Alert(
        "FeditServerErrors",
        'sum(rate(fedit_http_requests_total{status=~"5.."}[5m])) > 0.02 * sum(rate(fedit_http_requests_total[5m]))',
        "10m",
        "page",
        "more than 2 % of the answers are server errors",
        "fedit-server doctor",
    ),
    Alert(
        "FeditLoopSlow",
        _quantile(0.99, "fedit_event_loop_lag_seconds", "instance") + " > 0.5",
        "10m",
        "ticket",
        "the event loop of {{ $labels.instance }} is held up",
        "fedit-server doctor",
    ),
    Alert(
        "FeditDiskFull",
        "min by (instance) (fedit_disk_free_bytes) < 2e9",
        "5m",
        "page",
        "less than 2 GB are free under the data folder of {{ $labels.instance }}",
        "fedit-server doctor",
    ),
    Alert(
        "FeditCertificateEnds",
        "min(fedit_certificate_expiry_timestamp_seconds) - time() < 14 * 86400",
        "1h",
        "ticket",
        "the certificate ends within two weeks, and no device connects after that",
        "fedit-server cert show",
    ),
    Alert(
        "FeditNoBackup",
        "time() - max(fedit_last_backup_timestamp_seconds) > 3 * 86400",
        "1h",
        "ticket",
        "the last backup is more than three days old, or there is none",
        "fedit-server doctor",
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it; the data source is chosen there."""
    panels = [_panel(number, panel) for number, panel in enumerate(PANELS)]
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "task",
            "label": "Task",
            "type": "query",
            "datasource": _SOURCE,
            "query": "label_values(fedit_cohort_size, task)",
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
        },
    ]
    return {
        "title": "FedIT",
        "uid": "fedit",
        "tags": ["fedit"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }


def alert_rules() -> str:
    """Return the rules as the YAML file that Prometheus reads; strings are quoted as JSON, which YAML takes."""
    lines = ["groups:", "  - name: fedit", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.when)}",
            f"        for: {alert.lasts}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {json.dumps(alert.says)}",
            f"          look: {json.dumps(alert.does)}",
        ]
    return "\n".join(lines) + "\n"


def expressions() -> list[str]:
    """Return every query of dashboard and rules."""
    return [query for panel in PANELS for query, _ in panel.queries] + [alert.when for alert in ALERTS]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": _SOURCE,
        "gridPos": {
            "x": number % _COLUMNS * _WIDE, "y": number // _COLUMNS * _HIGH, "w": _WIDE, "h": _HIGH,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip
