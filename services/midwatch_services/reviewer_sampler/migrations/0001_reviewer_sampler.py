"""Keys of the days, runs drawn or passed over, the review queue, and the outbox."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "reviewer_sampler_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "reviewer_sampler_keys",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("committed", sa.SmallInteger, nullable=False),
        sa.Column("revealed", sa.SmallInteger, nullable=False),
    )
    run = ("agent", "run_id", "track")
    op.create_table(
        "reviewer_sampler_runs",
        *[sa.Column(name, sa.Text, primary_key=True) for name in run],
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("rate", sa.Float(53), nullable=False),
        sa.Column("draw", sa.Float(53), nullable=False),
        sa.Column("drawn", sa.SmallInteger, nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
    )
    op.create_index("reviewer_sampler_runs_day", "reviewer_sampler_runs", ["day"])
    op.create_table(
        "reviewer_sampler_queue",
        *[sa.Column(name, sa.Text, primary_key=True) for name in run],
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("ticket", sa.Text),
        sa.Column("rate", sa.Float(53), nullable=False),
        sa.Column("draw", sa.Float(53), nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("key_hash", sa.Text, nullable=False),
        sa.Column("sampled_at", sa.Float(53), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_index("reviewer_sampler_queue_sampled_at", "reviewer_sampler_queue", ["sampled_at"])
    create_outbox_tables(op.get_bind(), "reviewer_sampler")


def downgrade() -> None:
    for table in ("outbox", "applied", "queue", "runs", "keys"):
        op.drop_table(f"reviewer_sampler_{table}")
