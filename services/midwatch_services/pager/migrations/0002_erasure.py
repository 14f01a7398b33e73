"""What was confirmed of erasures."""

from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "pager_2"
down_revision = "pager_1"


def upgrade() -> None:
    create_outbox_tables(op.get_bind(), erasure_prefix("pager"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('pager')}_applied")
    op.drop_table(f"{erasure_prefix('pager')}_outbox")
