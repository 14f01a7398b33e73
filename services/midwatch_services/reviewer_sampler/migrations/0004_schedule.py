"""Of which version a run is and when it was decided, runs added before they were seen, and the alert on old items."""

import sqlalchemy as sa
from alembic import op

revision = "reviewer_sampler_0004"
down_revision = "reviewer_sampler_0003"

_RUNS, _QUEUE = "reviewer_sampler_runs", "reviewer_sampler_queue"
_ADDED = (("version", sa.Text, ""), ("decided_at", sa.Float(53), "0"))


def upgrade() -> None:
    for name, kind, usual in _ADDED:
        op.add_column(_RUNS, sa.Column(name, kind, nullable=False, server_default=usual))
    where = sa.text("key_hash = ''")
    op.create_index(f"{_QUEUE}_unseen", _QUEUE, ["agent", "run_id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "reviewer_sampler_ageing",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("reviewer_sampler_ageing")
    op.drop_index(f"{_QUEUE}_unseen", _QUEUE)
    with op.batch_alter_table(_RUNS) as batch:
        for name, _, _ in reversed(_ADDED):
            batch.drop_column(name)
