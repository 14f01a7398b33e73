"""Who holds and who judged a run, runs that are read besides the draw, and each agent's schedule."""

import sqlalchemy as sa
from alembic import op

revision = "reviewer_sampler_0003"
down_revision = "reviewer_sampler_0002"

_QUEUE = "reviewer_sampler_queue"
_ADDED = (
    ("drawn", sa.SmallInteger, "1"), ("causes", sa.Text, "[]"), ("version", sa.Text, ""), ("due_day", sa.Text, ""),
    ("second", sa.SmallInteger, "0"),
)  # fmt: skip


def upgrade() -> None:
    for name, kind, usual in _ADDED:
        op.add_column(_QUEUE, sa.Column(name, kind, nullable=False, server_default=usual))
    op.add_column(_QUEUE, sa.Column("verdict", sa.Text))
    op.add_column(_QUEUE, sa.Column("settled_at", sa.Float(53)))
    op.create_index(f"{_QUEUE}_state", _QUEUE, ["state", "agent", "due_day"])
    op.create_table(
        "reviewer_sampler_claims",
        sa.Column("claim", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("agent", "run_id", "track", "by")],
        *[sa.Column(name, sa.Float(53), nullable=False) for name in ("taken_at", "until")],
        sa.Column("over", sa.SmallInteger, nullable=False),
    )
    op.create_index("reviewer_sampler_claims_run", "reviewer_sampler_claims", ["agent", "run_id", "track"])
    op.create_table(
        "reviewer_sampler_judgements",
        *[sa.Column(name, sa.Text, primary_key=True) for name in ("agent", "run_id", "track", "by")],
        *[
            sa.Column(name, sa.Text, nullable=False)
            for name in ("event", "claim", "verdict", "reasons", "corrected", "note")
        ],
        sa.Column("seconds", sa.Float(53)),
        sa.Column("judged_at", sa.Float(53), nullable=False),
        sa.Column("counts", sa.SmallInteger, nullable=False),
    )
    op.create_table(
        "reviewer_sampler_schedules",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    for name in ("schedules", "judgements", "claims"):
        op.drop_table(f"reviewer_sampler_{name}")
    op.drop_index(f"{_QUEUE}_state", _QUEUE)
    with op.batch_alter_table(_QUEUE) as batch:
        for name in ("settled_at", "verdict", *[name for name, _, _ in reversed(_ADDED)]):
            batch.drop_column(name)
