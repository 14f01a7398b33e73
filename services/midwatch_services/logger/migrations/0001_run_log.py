"""The run log: events, runs, alerts."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "logger_events",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("stored_at", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("ticket", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("logger_events_run", "logger_events", ["agent", "run_id"])
    op.create_table(
        "logger_runs",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("version", "mode", "first_at", "last_at")],
        *[
            sa.Column(f"{name}_key", sa.Text, nullable=False)
            for name in ("head", "ticket", "session", "started", "finished", "handed_off")
        ],
        *[
            sa.Column(name, sa.Text)
            for name in (
                "ticket", "session", "started_id", "started_at", "channel", "customer", "finished_id", "ended_at",
                "resolution", "error", "halted_by", "handed_off_to", "handed_off_reason", "cost_usd", "cost_basis",
            )
        ],
        sa.Column("epoch", sa.BigInteger),
        *[
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in (
                "input_tokens", "output_tokens", "model_calls", "model_errors", "tool_calls", "tool_errors", "messages",
                "events", "model_us", "tool_us",
            )
        ],
    )  # fmt: skip
    op.create_index("logger_runs_first_at", "logger_runs", ["first_at"])
    op.create_index("logger_runs_ticket", "logger_runs", ["ticket"])
    op.create_table(
        "logger_alerts",
        sa.Column("alert_id", sa.Text, primary_key=True),
        *[sa.Column(f"{name}_key", sa.Text, nullable=False) for name in ("raised", "acknowledged", "resolved")],
        *[
            sa.Column(name, sa.Text)
            for name in (
                "raised_at", "service", "agent", "run_id", "rule", "action_taken", "raised", "acknowledged_at",
                "acknowledged_by", "resolved_at", "resolved_reason",
            )
        ],
        sa.Column("repeats", sa.BigInteger, nullable=False),
    )  # fmt: skip
    op.create_index("logger_alerts_run", "logger_alerts", ["agent", "run_id"])


def downgrade() -> None:
    for table in ("logger_alerts", "logger_runs", "logger_events"):
        op.drop_table(table)
