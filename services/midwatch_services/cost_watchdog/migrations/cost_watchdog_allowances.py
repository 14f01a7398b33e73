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
        sqlite_with_rowid=False,  # each page that a request touches is synced before it is answered
    )
    is_open = sa.text("open = 1")
    op.create_index(
        "cost_watchdog_open", "cost_watchdog_reservations", ["agent", "id"], sqlite_where=is_open,
        postgresql_where=is_open,
    )  # fmt: skip


def downgrade() -> None:
    op.drop_table("cost_watchdog_reservations")
