"""The states of models whose reported costs are not what their prices make of them."""

import sqlalchemy as sa
from alembic import op

revision = "cost_watchdog_models"
down_revision = "cost_watchdog_allowances"


def upgrade() -> None:
    op.create_table(
        "cost_watchdog_models",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("cost_watchdog_models")
