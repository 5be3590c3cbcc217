"""Several servers on one database: who lives, who owns which task, and the keys that all of them have, sealed."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, empty: one server alone writes into none of them."""
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("pin", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("started_at", Integer, nullable=False),
        sa.Column("seen_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "leases",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("epoch", Integer, nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_leases_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_leases")),
    )
    op.create_table(
        "sealed_keys",
        sa.Column("only", Integer, nullable=False),
        sa.Column("pin", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", Integer, nullable=False),
        sa.CheckConstraint('"only" = 1', name=op.f("ck_sealed_keys_one_row")),
        sa.PrimaryKeyConstraint("only", name=op.f("pk_sealed_keys")),
    )
