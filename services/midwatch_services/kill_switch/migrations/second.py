"""The cases that stopped runs left, the runs in flight of which one can come, and what the help desk is told."""

import sqlalchemy as sa
from alembic import op

revision = "kill_switch_2"
down_revision = "kill_switch_1"


def upgrade() -> None:
    op.create_table(
        "kill_switch_cases",
        sa.Column("case_id", sa.Text, primary_key=True),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("to", sa.Text, nullable=False),
        sa.Column("taker", sa.Text, nullable=False),
        sa.Column("taken_by", sa.Text, nullable=False),
        sa.Column("taken_run", sa.Text, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("opened_by", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("ticket", sa.Text),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("doubt", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("body", sa.LargeBinary),
    )
    op.create_index("kill_switch_cases_state", "kill_switch_cases", ["state", "opened_at"])
    op.create_table(
        "kill_switch_case_history",
        sa.Column("case_id", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "kill_switch_flights",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Column("instance", sa.Text, nullable=False),
    )
    op.create_table(
        "kill_switch_positions",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kill_switch_webhook_calls",
        sa.Column("case_id", sa.Text, primary_key=True),
        sa.Column("event", sa.Text, primary_key=True),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
    )
    op.create_index("kill_switch_webhook_due", "kill_switch_webhook_calls", ["sent_at", "due_at"])


def downgrade() -> None:
    for table in ("webhook_calls", "positions", "flights", "case_history", "cases"):
        op.drop_table(f"kill_switch_{table}")
