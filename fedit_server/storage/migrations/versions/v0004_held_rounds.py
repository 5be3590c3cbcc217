"""A round may be held: its candidate, who evaluates candidates, and what they reported."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three tables; a task has at most one round that is open or held."""
    op.create_table(
        "candidates",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("version", Integer, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("parent_digest", sa.String(), nullable=False),
        sa.Column("sums_done", Integer, nullable=False),
        sa.Column("correction", sa.String(), nullable=False),
        sa.Column("alarm", sa.String(), nullable=False),
        sa.Column("held_at", Integer, nullable=False),
        sa.Column("reports_until", Integer, nullable=True),
        sa.Column("decision", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_candidates_round_id")),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_candidates")),
    )
    op.create_table(
        "evaluators",
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("appointed_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name=op.f("fk_evaluators_client_id")),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_evaluators")),
    )
    op.create_table(
        "evaluations",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("loss_before", sa.Float(), nullable=False),
        sa.Column("loss_after", sa.Float(), nullable=False),
        sa.Column("rows", Integer, nullable=False),
        sa.Column("tokens", Integer, nullable=False),
        sa.Column("received_at", Integer, nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_evaluations_round_id")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name=op.f("fk_evaluations_client_id")),
        sa.PrimaryKeyConstraint("round_id", "client_id", name=op.f("pk_evaluations")),
    )
    op.drop_index("ix_rounds_one_open_per_task", "rounds")
    is_going_on = sa.text("state IN ('open', 'held')")
    op.create_index(
        "ix_rounds_one_open_per_task",
        "rounds",
        ["task_id"],
        unique=True,
        sqlite_where=is_going_on,
        postgresql_where=is_going_on,
    )
