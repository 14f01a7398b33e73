"""When each run was last heard of, what must be kept, and which exports were made."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0006"
down_revision = "logger_0005"


def upgrade() -> None:
    op.add_column("logger_runs", sa.Column("stored_at", sa.Text, nullable=False, server_default=""))
    op.execute(
        "UPDATE logger_runs SET stored_at = coalesce((SELECT max(e.stored_at) FROM logger_events e "
        "WHERE e.agent = logger_runs.agent AND e.run_id = logger_runs.run_id), last_at)"
    )
    op.create_index("logger_runs_month", "logger_runs", ["agent", "month", "first_at", "run_id"])
    op.create_table(
        "logger_holds",
        sa.Column("hold_id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("placed_key", "lifted_key")],
        *[
            sa.Column(name, sa.Text)
            for name in (
                "placed_at", "placed_by", "reason", "agent", "run_id", "ticket", "customer", "until", "lifted_at",
                "lifted_by", "lifted_reason",
            )
        ],
    )  # fmt: skip
    op.create_table(
        "logger_exports",
        sa.Column("id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("made_at", "made_by", "host", "path", "format")],
        *[sa.Column(name, sa.Text) for name in ("agent", "run_id", "since", "until")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("runs", "events", "alerts")],
    )
    op.create_table(
        "logger_passes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("counted_to", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("logger_passes", "logger_exports", "logger_holds"):
        op.drop_table(table)
    op.drop_index("logger_runs_month", "logger_runs")
    op.drop_column("logger_runs", "stored_at")
