"""Which runs a digest names or quotes, and what was confirmed of erasures."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "digest_2"
down_revision = "digest_1"


def upgrade() -> None:
    op.create_table(
        "digest_runs",
        *[sa.Column(name, sa.Text, primary_key=True) for name in ("run_agent", "run_id", "day", "agent")],
    )
    op.create_index("digest_runs_digest", "digest_runs", ["day", "agent"])
    create_outbox_tables(op.get_bind(), erasure_prefix("digest"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('digest')}_applied")
    op.drop_table(f"{erasure_prefix('digest')}_outbox")
    op.drop_table("digest_runs")
