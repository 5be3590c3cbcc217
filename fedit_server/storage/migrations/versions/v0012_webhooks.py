"""Webhooks: who is told of rounds, and what became of each message."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; nobody is told of anything at first."""
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", sa.String(), nullable=False),
        sa.Column("created_at", Integer, nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "deliveries",
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("happened_at", Integer, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", Integer, nullable=False),
        sa.Column("next_at", Integer, nullable=False),
        sa.Column("status", Integer),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.webhook_id"], name=op.f("fk_deliveries_webhook_id")),
        sa.PrimaryKeyConstraint("webhook_id", "event_id", name=op.f("pk_deliveries")),
    )
