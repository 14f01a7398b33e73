"""When the silence of a run is to be reported, and what is usual for an agent."""

import sqlalchemy as sa
from alembic import op

revision = "cost_watchdog_rules"
down_revision = "cost_watchdog_models"


def upgrade() -> None:
    op.add_column("cost_watchdog_runs", sa.Column("stalls_at", sa.Float))
    watched = sa.text("stalls_at IS NOT NULL")
    op.create_index(
        "cost_watchdog_stalls", "cost_watchdog_runs", ["stalls_at"], sqlite_where=watched, postgresql_where=watched
    )
    op.create_table(
        "cost_watchdog_usual",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("cost_watchdog_usual")
    op.drop_index("cost_watchdog_stalls")
    op.drop_column("cost_watchdog_runs", "stalls_at")
