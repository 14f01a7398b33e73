"""The states of runs and tickets, who wrote them last, and the outbox."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "cost_watchdog_1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cost_watchdog_runs",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("finished", sa.SmallInteger, nullable=False),
        sa.Column("waiting_since", sa.Float),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    waits, moves = sa.text("waiting_since IS NOT NULL"), sa.text("finished = 0")
    op.create_index(
        "cost_watchdog_waiting", "cost_watchdog_runs", ["waiting_since"], sqlite_where=waits, postgresql_where=waits
    )
    op.create_index(
        "cost_watchdog_in_flight", "cost_watchdog_runs", ["agent", "key"], sqlite_where=moves, postgresql_where=moves
    )
    op.create_table(
        "cost_watchdog_tickets",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    writer = op.create_table(
        "cost_watchdog_writer", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text)
    )
    op.bulk_insert(writer, [{"id": 1, "name": ""}])
    create_outbox_tables(op.get_bind(), "cost_watchdog")


def downgrade() -> None:
    for table in ("outbox", "applied", "writer", "tickets", "runs"):
        op.drop_table(f"cost_watchdog_{table}")
