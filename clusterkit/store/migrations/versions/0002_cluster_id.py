"""Experiments know the id of their cluster, not its name alone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # A plain ADD COLUMN: making the table anew would drop it, and its tasks with it (CASCADE).
    op.add_column(
        "experiments", sa.Column("cluster_id", sa.String(), nullable=False, server_default="")
    )
