"""Invites that ask for the operator's yes, and the devices that wait for it."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Invites that are there already ask for nothing."""
    with op.batch_alter_table("invites") as batch:
        batch.add_column(sa.Column("needs_approval", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("invites") as batch:
        batch.alter_column("needs_approval", server_default=None)
    op.create_table(
        "approvals",
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("invite_id", sa.String(), nullable=False),
        sa.Column("asked_at", Integer, nullable=False),
        sa.Column("approved_at", Integer),
        sa.ForeignKeyConstraint(["invite_id"], ["invites.invite_id"], name=op.f("fk_approvals_invite_id")),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_approvals")),
    )
