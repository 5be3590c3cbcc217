"""The tables; DATA_MODEL.md says what each is for. Times are whole seconds since 1970, UTC.

An Integer has 64 bits on both databases.
"""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from fedit_server.storage.types import Integer

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

federation = Table(
    "federation",
    metadata,
    Column("only", Integer, CheckConstraint('"only" = 1', name="one_row"), primary_key=True),
    Column("federation_id", String, nullable=False),
    Column("invite_salt", LargeBinary, nullable=False),
    Column("created_at", Integer, nullable=False),
)

invites = Table(
    "invites",
    metadata,
    Column("invite_id", String, primary_key=True),
    Column("code_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("max_uses", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("revoked_at", Integer),
    Column("needs_approval", Boolean, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("label", String, nullable=False),
    Column("invite_id", String, ForeignKey("invites.invite_id"), nullable=False),
    Column("asked_at", Integer, nullable=False),
    Column("approved_at", Integer),
)

clients = Table(
    "clients",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("label", String, nullable=False),
    Column("device_kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("enrolled_at", Integer, nullable=False),
    Column("last_seen", Integer, nullable=False),
    Column("invite_id", String, ForeignKey("invites.invite_id")),
    Column("client_version", String, nullable=False, server_default=""),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("client_id", String, ForeignKey("clients.client_id"), nullable=False, index=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("not_after", Integer, nullable=False),
    Column("revoked_at", Integer),
)

key_log = Table(
    "key_log",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
)

authority_requests = Table(
    "authority_requests",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("request_id", LargeBinary, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("client_id", String, nullable=False),
    Column("body", LargeBinary),
    Column("received_at", Integer, nullable=False, index=True),
    Column("answered_at", Integer),
    Column("serial", Integer),
    Column("problem", String, nullable=False),
    Column("code", String, nullable=False),
    Column("detail", String, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", String, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("owner", String, nullable=False, server_default=""),
)

task_changes = Table(
    "task_changes",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("envelope", LargeBinary, nullable=False),
)

invite_tasks = Table(
    "invite_tasks",
    metadata,
    Column("invite_id", String, ForeignKey("invites.invite_id"), primary_key=True),
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
)

task_documents = Table(
    "task_documents",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", LargeBinary, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("published_at", Integer, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    Column("round_id", String, primary_key=True),
    Column("task_id", String, ForeignKey("tasks.task_id"), nullable=False),
    Column("task_version", Integer, nullable=False),
    Column("round_no", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("offer", LargeBinary, nullable=False),
    Column("opened_at", Integer, nullable=False),
    Column("ended_at", Integer),
    Column("result", LargeBinary),
    Column("problem", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("survivors", Integer),
    Column("weight", Integer),
    Column("report", String),
    UniqueConstraint("task_id", "round_no"),
)
_ONE_ROUND = rounds.c.state.in_(["open", "held"])
Index(
    "ix_rounds_one_open_per_task",
    rounds.c.task_id,
    unique=True,
    sqlite_where=_ONE_ROUND,
    postgresql_where=_ONE_ROUND,
)  # two writers could otherwise open two rounds on one adapter
Index("ix_rounds_task_state", rounds.c.task_id, rounds.c.state)  # counting rounds must not read their signed bytes

cohorts = Table(
    "cohorts",
    metadata,
    Column("round_id", String, ForeignKey("rounds.round_id"), primary_key=True),
    Column("cohort_id", Integer, primary_key=True, autoincrement=False),
    Column("stage", String, nullable=False),
    Column("progress", String, nullable=False),
    Column("deadline", Float),
    Column("reason", String, nullable=False),
    Column("survivors", Integer),
    Column("weight", Integer),
    Column("report", String),
)

stage_times = Table(
    "stage_times",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("round_id", String, ForeignKey("rounds.round_id"), nullable=False, index=True),
    Column("cohort_id", Integer, nullable=False),
    Column("stage", String, nullable=False),
    Column("entered_at", Integer, nullable=False),
)

invited = Table(
    "invited",
    metadata,
    Column("round_id", String, ForeignKey("rounds.round_id"), primary_key=True),
    Column("client_id", String, ForeignKey("clients.client_id"), primary_key=True),
    Column("cohort_id", Integer, nullable=False),
)

journal = Table(
    "journal",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("round_id", String, ForeignKey("rounds.round_id"), nullable=False, index=True),
    Column("cohort_id", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("body", LargeBinary),
    Column("body_hash", LargeBinary, nullable=False),
)

adapters = Table(
    "adapters",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String, nullable=False),
    Column("parent_digest", String, nullable=False),
    Column("round_no", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("public_digest", String, nullable=False, default=""),
    Column("kept_digest", String, nullable=False, default=""),
)

candidates = Table(
    "candidates",
    metadata,
    Column("round_id", String, ForeignKey("rounds.round_id"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("parent_digest", String, nullable=False),
    Column("sums_done", Integer, nullable=False),
    Column("correction", String, nullable=False),
    Column("alarm", String, nullable=False),
    Column("held_at", Integer, nullable=False),
    Column("reports_until", Integer),
    Column("decision", String, nullable=False),
    Column("note", String, nullable=False),
    Column("public_digest", String, nullable=False, default=""),
    Column("kept_digest", String, nullable=False, default=""),
)

evaluators = Table(
    "evaluators",
    metadata,
    Column("client_id", String, ForeignKey("clients.client_id"), primary_key=True),
    Column("appointed_at", Integer, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("round_id", String, ForeignKey("rounds.round_id"), primary_key=True),
    Column("client_id", String, ForeignKey("clients.client_id"), primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("loss_before", Float, nullable=False),
    Column("loss_after", Float, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("received_at", Integer, nullable=False),
)

suspicions = Table(
    "suspicions",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("client_id", String, ForeignKey("clients.client_id"), primary_key=True),
    Column("streak", Integer, nullable=False),
    Column("flagged", Integer, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("alone", Boolean, nullable=False),
)

round_orders = Table(
    "round_orders",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("round_id", String, ForeignKey("rounds.round_id"), nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("stage", String, nullable=False),
    Column("by", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("given_at", Integer, nullable=False),
    Column("answer", String),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("revoked_at", Integer),
    Column("last_used", Integer),
)

audit = Table(
    "audit",
    metadata,
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
)

retention = Table(
    "retention",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("keep_last", Integer),
    Column("keep_every", Integer, nullable=False),
    Column("rounds_days", Integer),
)

retired_adapters = Table(
    "retired_adapters",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("retired_at", Integer, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("replica_id", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("pin", String, nullable=False),
    Column("token", String, nullable=False),
    Column("started_at", Integer, nullable=False),
    Column("seen_until", Float, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("task_id", String, ForeignKey("tasks.task_id"), primary_key=True),
    Column("owner", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)

sealed_keys = Table(
    "sealed_keys",
    metadata,
    Column("only", Integer, CheckConstraint('"only" = 1', name="one_row"), primary_key=True),
    Column("pin", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("sealed_at", Integer, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", String, primary_key=True),
    Column("url", String, nullable=False),
    Column("events", String, nullable=False),
    Column("created_at", Integer, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook_id", String, ForeignKey("webhooks.webhook_id"), primary_key=True),
    Column("event_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("round_id", String, nullable=False),
    Column("happened_at", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Integer, nullable=False),
    Column("status", Integer),
)
