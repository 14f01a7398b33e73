"""What an erasure was asked for by, kind by kind, so that an import can tell a ticket from a run of the same name."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0009"
down_revision = "logger_0008"


def upgrade() -> None:
    op.add_column("logger_erasures", sa.Column("matched", sa.Text))


def downgrade() -> None:
    op.drop_column("logger_erasures", "matched")
