"""The switch's keys, halts with their proofs, instances, and what is known of runs."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "kill_switch_1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "kill_switch_keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "kill_switch_halts",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True),
        sa.Column("requested_at", sa.BigInteger, primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("contained_at", sa.BigInteger),
        sa.Column("report", sa.LargeBinary),
        sa.Column("closed_at", sa.BigInteger, index=True),
    )
    op.create_table(
        "kill_switch_instances",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("known", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "kill_switch_runs",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("written_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )
    op.create_table(
        "kill_switch_strays",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("last_at", sa.BigInteger, nullable=False),
    )
    create_outbox_tables(op.get_bind(), "kill_switch")


def downgrade() -> None:
    for table in ("outbox", "applied", "strays", "runs", "instances", "halts", "keys"):
        op.drop_table(f"kill_switch_{table}")
