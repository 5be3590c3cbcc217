"""When the cohorts of a round came to each stage, and an index for counting rounds."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, empty: nobody has noted the times of earlier rounds; and the index."""
    op.create_table(
        "stage_times",
        sa.Column("position", Integer, nullable=False),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("cohort_id", Integer, nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("entered_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_stage_times_round_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_stage_times")),
    )
    op.create_index(op.f("ix_stage_times_round_id"), "stage_times", ["round_id"])
    op.create_index("ix_rounds_task_state", "rounds", ["task_id", "state"])
