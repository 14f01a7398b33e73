"""What was confirmed of erasures."""

from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "cost_watchdog_erasure"
down_revision = "cost_watchdog_rules"


def upgrade() -> None:
    create_outbox_tables(op.get_bind(), erasure_prefix("cost_watchdog"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('cost_watchdog')}_applied")
    op.drop_table(f"{erasure_prefix('cost_watchdog')}_outbox")
