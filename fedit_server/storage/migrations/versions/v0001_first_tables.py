"""The first tables."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of DATA_MODEL.md."""
    op.create_table(
        "federation",
        sa.Column("only", Integer, nullable=False),
        sa.Column("federation_id", sa.String(), nullable=False),
        sa.Column("invite_salt", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Integer, nullable=False),
        sa.CheckConstraint('"only" = 1', name=op.f("ck_federation_one_row")),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_federation")),
    )
    op.create_table(
        "invites",
        sa.Column("invite_id", sa.String(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Integer, nullable=False),
        sa.Column("expires_at", Integer, nullable=False),
        sa.Column("max_uses", Integer, nullable=False),
        sa.Column("uses", Integer, nullable=False),
        sa.Column("revoked_at", Integer, nullable=True),
        sa.PrimaryKeyConstraint("invite_id", name=op.f("pk_invites")),
        sa.UniqueConstraint("code_hash", name=op.f("uq_invites_code_hash")),
    )
    op.create_table(
        "key_log",
        sa.Column("position", Integer, autoincrement=False, nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_key_log")),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("version", Integer, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("failures", Integer, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_table(
        "adapters",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("version", Integer, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("parent_digest", sa.String(), nullable=False),
        sa.Column("round_no", Integer, nullable=False),
        sa.Column("created_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_adapters_task_id")),
        sa.PrimaryKeyConstraint("task_id", "version", name=op.f("pk_adapters")),
    )
    op.create_table(
        "clients",
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("device_kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("enrolled_at", Integer, nullable=False),
        sa.Column("last_seen", Integer, nullable=False),
        sa.Column("invite_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["invite_id"], ["invites.invite_id"], name=op.f("fk_clients_invite_id")),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_clients")),
    )
    op.create_table(
        "rounds",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("task_version", Integer, nullable=False),
        sa.Column("round_no", Integer, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("progress", sa.String(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=True),
        sa.Column("offer", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", Integer, nullable=False),
        sa.Column("ended_at", Integer, nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("problem", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("survivors", Integer, nullable=True),
        sa.Column("weight", Integer, nullable=True),
        sa.Column("report", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_rounds_task_id")),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("task_id", "round_no", name=op.f("uq_rounds_task_id")),
    )
    is_open = sa.text("state = 'open'")
    op.create_index(
        "ix_rounds_one_open_per_task",
        "rounds",
        ["task_id"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "task_documents",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("version", Integer, autoincrement=False, nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_documents_task_id")),
        sa.PrimaryKeyConstraint("task_id", "version", name=op.f("pk_task_documents")),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", Integer, autoincrement=False, nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("not_after", Integer, nullable=False),
        sa.Column("revoked_at", Integer, nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name=op.f("fk_certificates_client_id")),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
    )
    op.create_index(op.f("ix_certificates_client_id"), "certificates", ["client_id"], unique=False)
    op.create_table(
        "invited",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name=op.f("fk_invited_client_id")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_invited_round_id")),
        sa.PrimaryKeyConstraint("round_id", "client_id", name=op.f("pk_invited")),
    )
    op.create_table(
        "journal",
        sa.Column("position", Integer, nullable=False),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_journal_round_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_journal")),
    )
    op.create_index(op.f("ix_journal_round_id"), "journal", ["round_id"], unique=False)
