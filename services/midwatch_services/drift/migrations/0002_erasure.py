"""What was confirmed of erasures."""

from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "drift_0002"
down_revision = "drift_0001"


def upgrade() -> None:
    create_outbox_tables(op.get_bind(), erasure_prefix("drift"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('drift')}_applied")
    op.drop_table(f"{erasure_prefix('drift')}_outbox")
