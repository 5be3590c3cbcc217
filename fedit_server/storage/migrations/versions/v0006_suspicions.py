"""What the outliers among a task's cohorts say about each device, round after round."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; nobody is suspected at first."""
    op.create_table(
        "suspicions",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("streak", Integer, nullable=False),
        sa.Column("flagged", Integer, nullable=False),
        sa.Column("rounds", Integer, nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_suspicions_task_id")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name=op.f("fk_suspicions_client_id")),
        sa.PrimaryKeyConstraint("task_id", "client_id", name=op.f("pk_suspicions")),
    )
