"""An enrolment authority may live apart: requests wait for it, and the server does not know who used which invite."""

import sqlalchemy as sa
from alembic import op

from fedit_server.storage.types import Integer

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the queue; let a client be there without an invite of this server."""
    op.create_table(
        "authority_requests",
        sa.Column("position", Integer, nullable=False),
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", Integer, nullable=False),
        sa.Column("answered_at", Integer, nullable=True),
        sa.Column("serial", Integer, nullable=True),
        sa.Column("problem", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_authority_requests")),
        sa.UniqueConstraint("request_id", name=op.f("uq_authority_requests_request_id")),
    )
    op.create_index(op.f("ix_authority_requests_received_at"), "authority_requests", ["received_at"])
    with op.batch_alter_table("clients") as batch:
        batch.alter_column("invite_id", existing_type=sa.String(), nullable=True)
