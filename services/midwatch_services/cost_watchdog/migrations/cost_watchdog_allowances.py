"""Money that is set aside for calls."""

import sqlalchemy as sa
from alembic import op

revision = "cost_watchdog_allowances"
down_revision = "cost_watchdog_2"


def upgrade() -> None:
    op.create_table(
        "cost_watchdog_reservations",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("open", sa.SmallInteger, nullable=False),
        sa.Column("ends_at", sa.Float, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    is_open = sa.text("open = 1")
    op.create_index(
        "cost_watchdog_open", "cost_watchdog_reservations", ["agent", "id"], sqlite_where=is_open,
        postgresql_where=is_open,
    )  # fmt: skip
    op.create_index("cost_watchdog_ends", "cost_watchdog_reservations", ["ends_at"])


def downgrade() -> None:
    op.drop_table("cost_watchdog_reservations")
