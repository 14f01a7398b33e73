"""The chain of each agent, how far who has come, and the signed checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0004"
down_revision = "logger_0003"


def upgrade() -> None:
    op.create_table(
        "logger_blocks",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("first_place", "last_place", "count")],
        sa.Column("leaves", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        *[sa.Column(name, sa.LargeBinary, nullable=False) for name in ("root", "previous", "head")],
        sa.Column("made_at", sa.Text, nullable=False),
    )
    op.create_index("logger_blocks_place", "logger_blocks", ["first_place"])
    op.create_table(
        "logger_cursors",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("place", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "logger_late",
        sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "logger_checkpoints",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
    )
    op.create_table(
        "logger_checkpoint_heads",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("checkpoint", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    names = ("logger_checkpoint_heads", "logger_checkpoints", "logger_late", "logger_cursors", "logger_blocks")
    for name in names:
        op.drop_table(name)
