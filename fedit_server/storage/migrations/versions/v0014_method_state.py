"""What a method knows besides the adapter, beside each version: for the devices, and for the server alone."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COLUMNS = ("public_digest", "kept_digest")


def upgrade() -> None:
    """Versions that are there already have nothing besides."""
    for table in ("adapters", "candidates"):
        with op.batch_alter_table(table) as batch:
            for name in _COLUMNS:
                batch.add_column(sa.Column(name, sa.String(), nullable=False, server_default=""))
        with op.batch_alter_table(table) as batch:
            for name in _COLUMNS:
                batch.alter_column(name, server_default=None)
