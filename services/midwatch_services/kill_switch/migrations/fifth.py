"""Drills and their results."""

import sqlalchemy as sa
from alembic import op

revision = "kill_switch_5"
down_revision = "kill_switch_4"


def upgrade() -> None:
    op.create_table(
        "kill_switch_drills",
        sa.Column("drill_id", sa.Text, primary_key=True),
        sa.Column("agent", sa.Text, nullable=False, index=True),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("scheduled", sa.SmallInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("result", sa.LargeBinary),
    )
    op.create_table(
        "kill_switch_drilled_agents",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("kill_switch_drilled_agents")
    op.drop_table("kill_switch_drills")
