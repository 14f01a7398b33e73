"""Erasures, the runs that were erased, and who has confirmed it."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0007"
down_revision = "logger_0006"


def upgrade() -> None:
    op.create_table(
        "logger_erasures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("asked", sa.Text),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("by", "reason", "asked_at", "salt", "reference")],
        sa.Column("upto", sa.BigInteger),
        sa.Column("governance", sa.BigInteger),
        sa.Column("places", sa.Text, nullable=False),
        sa.Column("proof", sa.Text),
        sa.Column("done_at", sa.Text),
    )
    op.create_table(
        "logger_erased_runs",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("erasure", sa.Text, nullable=False, index=True),
        sa.Column("late", sa.SmallInteger, nullable=False),
        sa.Column("tickets", sa.Text, nullable=False),
    )
    op.create_table(
        "logger_erasure_parts",
        sa.Column("erasure", sa.Text, primary_key=True),
        sa.Column("part", sa.BigInteger, primary_key=True),
        sa.Column("runs", sa.Text, nullable=False),
        sa.Column("alerts", sa.Text, nullable=False),
        sa.Column("upto", sa.BigInteger),
        sa.Column("confirmed", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for name in ("logger_erasure_parts", "logger_erased_runs", "logger_erasures"):
        op.drop_table(name)
