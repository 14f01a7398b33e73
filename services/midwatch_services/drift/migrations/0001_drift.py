"""Facts of runs, days judged, what was found, the alerts that stand, and the outbox."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "drift_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "drift_facts",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("mode", "version", "ended_at")],
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("drift_facts_ended_at", "drift_facts", ["ended_at"])
    op.create_table(
        "drift_days", sa.Column("day", sa.Text, primary_key=True), sa.Column("judged_at", sa.Text, nullable=False)
    )
    key = ("agent", "mode", "day", "against")
    op.create_table(
        "drift_judgements",
        *[sa.Column(name, sa.Text, primary_key=True) for name in key],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("label", "phase")],
        *[
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("recent_runs", "baseline_runs", "least", "tests")
        ],
    )
    op.create_index("drift_judgements_day", "drift_judgements", ["day"])
    op.create_table(
        "drift_findings",
        *[sa.Column(name, sa.Text, primary_key=True) for name in key],
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("drift_findings_day", "drift_findings", ["day"])
    op.create_table(
        "drift_alerts",
        *[sa.Column(name, sa.Text, primary_key=True) for name in ("agent", "mode", "cause")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("alert_id", "against")],
        sa.Column("repeats", sa.BigInteger, nullable=False),
    )
    create_outbox_tables(op.get_bind(), "drift")


def downgrade() -> None:
    for table in ("outbox", "applied", "alerts", "findings", "judgements", "days", "facts"):
        op.drop_table(f"drift_{table}")
