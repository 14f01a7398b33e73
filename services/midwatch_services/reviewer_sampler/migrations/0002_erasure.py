"""What was confirmed of erasures."""

from alembic import op

from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import create_outbox_tables

revision = "reviewer_sampler_0002"
down_revision = "reviewer_sampler_0001"


def upgrade() -> None:
    create_outbox_tables(op.get_bind(), erasure_prefix("reviewer_sampler"))


def downgrade() -> None:
    op.drop_table(f"{erasure_prefix('reviewer_sampler')}_applied")
    op.drop_table(f"{erasure_prefix('reviewer_sampler')}_outbox")
