"""What of a run's cost is not known, and where what was reported is not what the prices make of it."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0002"
down_revision = "logger_0001"

_COUNTS, _SUMS = ("unpriced_calls", "differing_calls"), ("differing_reported_usd", "differing_computed_usd")


def upgrade() -> None:
    for name in _COUNTS:
        op.add_column("logger_runs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    for name in _SUMS:
        op.add_column("logger_runs", sa.Column(name, sa.Text))


def downgrade() -> None:
    for name in (*_COUNTS, *_SUMS):
        op.drop_column("logger_runs", name)
