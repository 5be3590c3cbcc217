"""A round has one or more cohorts: where each stands, who is in it, and its journal."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every present round a round of one cohort, numbered 0."""
    op.create_table(
        "cohorts",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("cohort_id", Integer, autoincrement=False, nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("progress", sa.String(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("survivors", Integer, nullable=True),
        sa.Column("weight", Integer, nullable=True),
        sa.Column("report", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_cohorts_round_id")),
        sa.PrimaryKeyConstraint("round_id", "cohort_id", name=op.f("pk_cohorts")),
    )
    op.execute(
        "INSERT INTO cohorts"
        " SELECT round_id, 0, stage, progress, deadline, reason, survivors, weight, report FROM rounds"
    )
    for column in ("stage", "progress", "deadline"):
        op.drop_column("rounds", column)
    # SQLite adds a NOT NULL column only with a default; the tables that the code knows have none, so it goes again.
    for table in ("invited", "journal"):
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("cohort_id", Integer, nullable=False, server_default="0"))
        with op.batch_alter_table(table) as batch:
            batch.alter_column("cohort_id", server_default=None)
