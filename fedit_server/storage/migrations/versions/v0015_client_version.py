"""Which version of the client a device has, as its newest check-in said."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Unknown until a device comes by."""
    with op.batch_alter_table("clients") as batch:
        batch.add_column(sa.Column("client_version", sa.String(), nullable=False, server_default=""))
