"""What was confirmed of erasures."""

from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "kill_switch_6"
down_revision = "kill_switch_5"


def upgrade() -> None:
    create_outbox_tables(op.get_bind(), erasure_prefix("kill_switch"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('kill_switch')}_applied")
    op.drop_table(f"{erasure_prefix('kill_switch')}_outbox")
