"""Alerts that are open, and how the runs of the last day ended."""

import sqlalchemy as sa
from alembic import op

revision = "kill_switch_3"
down_revision = "kill_switch_2"


def upgrade() -> None:
    op.create_table(
        "kill_switch_alarms",
        sa.Column("dedupe_key", sa.Text, primary_key=True),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("raised_at", sa.BigInteger, nullable=False),
        sa.Column("repeats", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kill_switch_outcomes",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("finished_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("failed", sa.SmallInteger, nullable=False),
    )
    op.create_index("kill_switch_halts_requested", "kill_switch_halts", ["requested_at"])


def downgrade() -> None:
    op.drop_index("kill_switch_halts_requested", "kill_switch_halts")
    op.drop_table("kill_switch_outcomes")
    op.drop_table("kill_switch_alarms")
