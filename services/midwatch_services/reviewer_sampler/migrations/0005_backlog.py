"""What waited on each day is counted from an index alone, of those days and of what waits still."""

from alembic import op

revision = "reviewer_sampler_0005"
down_revision = "reviewer_sampler_0004"

_QUEUE = "reviewer_sampler_queue"
_COUNTED = ["settled_at", "agent", "sampled_at", "state", "track", "mode"]


def upgrade() -> None:
    op.create_index(f"{_QUEUE}_settled_at", _QUEUE, _COUNTED)


def downgrade() -> None:
    op.drop_index(f"{_QUEUE}_settled_at", _QUEUE)
