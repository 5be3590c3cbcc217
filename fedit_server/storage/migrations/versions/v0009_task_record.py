"""Tasks with owners and a signed record, orders about open rounds, and invites to single tasks."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; nobody owns the tasks that there are, and every invite is one to all of them.

    The record of a task that there is already begins at the server's next start.
    """
    with op.batch_alter_table("tasks") as tasks:
        tasks.add_column(sa.Column("owner", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "task_changes",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("number", Integer, autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_changes_task_id")),
        sa.PrimaryKeyConstraint("task_id", "number", name=op.f("pk_task_changes")),
    )
    op.create_table(
        "invite_tasks",
        sa.Column("invite_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["invite_id"], ["invites.invite_id"], name=op.f("fk_invite_tasks_invite_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_invite_tasks_task_id")),
        sa.PrimaryKeyConstraint("invite_id", "task_id", name=op.f("pk_invite_tasks")),
    )
    op.create_table(
        "round_orders",
        sa.Column("position", Integer, nullable=False),
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("given_at", Integer, nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"], name=op.f("fk_round_orders_round_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_round_orders")),
    )
    op.create_index(op.f("ix_round_orders_round_id"), "round_orders", ["round_id"])
