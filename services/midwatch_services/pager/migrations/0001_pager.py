"""Alerts, the groups of their causes, what is to be sent, how the channels do, and the outbox."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "pager_1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "pager_alerts",
        sa.Column("alert_id", sa.Text, primary_key=True),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("dedupe_key", sa.Text, nullable=False),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    op.create_index("pager_alerts_key", "pager_alerts", ["dedupe_key"])
    op.create_table(
        "pager_groups",
        sa.Column("group_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
    alive = sa.text("ended_at IS NULL")
    op.create_index(
        "pager_groups_alive", "pager_groups", ["key"], unique=True, sqlite_where=alive, postgresql_where=alive
    )
    op.create_table(
        "pager_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("group_id", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("urgency", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("tried_at", sa.BigInteger),
        sa.Column("sent_at", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("pager_deliveries_group", "pager_deliveries", ["group_id"])
    waits = sa.text("due_at IS NOT NULL")
    op.create_index("pager_deliveries_due", "pager_deliveries", ["due_at"], sqlite_where=waits, postgresql_where=waits)
    op.create_table(
        "pager_channels",
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("failing_since", sa.BigInteger),
        sa.Column("dead_at", sa.BigInteger),
        sa.Column("alert_id", sa.Text),
        sa.Column("error", sa.Text),
    )
    create_outbox_tables(op.get_bind(), "pager")


def downgrade() -> None:
    for table in ("outbox", "applied", "channels", "deliveries", "groups", "alerts"):
        op.drop_table(f"pager_{table}")
