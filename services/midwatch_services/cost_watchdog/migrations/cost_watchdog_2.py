"""How far a rebuild from the stream has come."""

import sqlalchemy as sa
from alembic import op

revision = "cost_watchdog_2"
down_revision = "cost_watchdog_1"


def upgrade() -> None:
    op.add_column("cost_watchdog_writer", sa.Column("rebuild_next", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("cost_watchdog_writer", "rebuild_next")
