"""What a halt stopped, when its first case reached the fallback, and what ended it."""

import sqlalchemy as sa
from alembic import op

revision = "kill_switch_4"
down_revision = "kill_switch_3"

_TABLE = "kill_switch_halts"


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("runs_stopped", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(_TABLE, sa.Column("cases", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column(_TABLE, sa.Column("first_case_at", sa.BigInteger))
    op.add_column(_TABLE, sa.Column("ended_by", sa.LargeBinary))
    op.add_column(_TABLE, sa.Column("ended_epoch", sa.BigInteger))


def downgrade() -> None:
    for name in ("ended_epoch", "ended_by", "first_case_at", "cases", "runs_stopped"):
        op.drop_column(_TABLE, name)
