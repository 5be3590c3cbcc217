"""What each task keeps, and the adapter versions whose content is gone."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; everything is kept until a task says otherwise."""
    op.create_table(
        "retention",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("keep_last", Integer),
        sa.Column("keep_every", Integer, nullable=False),
        sa.Column("rounds_days", Integer),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_retention_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_retention")),
    )
    op.create_table(
        "retired_adapters",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("version", Integer, autoincrement=False, nullable=False),
        sa.Column("retired_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_retired_adapters_task_id")),
        sa.PrimaryKeyConstraint("task_id", "version", name=op.f("pk_retired_adapters")),
    )
