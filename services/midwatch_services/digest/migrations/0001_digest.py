"""The digests that were written, the days that are done, and the outbox."""

import sqlalchemy as sa
from alembic import op

from midwatch.runtime.outbox import create_outbox_tables

revision = "digest_1"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "digest_written",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("words", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "digest_days",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("done_at", sa.BigInteger, nullable=False),
    )
    create_outbox_tables(op.get_bind(), "digest")


def downgrade() -> None:
    for table in ("outbox", "applied", "days", "written"):
        op.drop_table(f"digest_{table}")
