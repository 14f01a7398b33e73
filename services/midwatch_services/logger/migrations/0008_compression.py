"""PostgreSQL compresses what events say by LZ4, where it can: a third of what storing an event took went to its own."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0008"
down_revision = "logger_0007"


def upgrade() -> None:
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    try:
        with bind.begin_nested():
            op.execute("ALTER TABLE logger_events ALTER COLUMN body SET COMPRESSION lz4")
    except sa.exc.DBAPIError:
        pass  # older than PostgreSQL 14, or built without it: it goes on as before


def downgrade() -> None:
    """What was compressed stays readable."""
