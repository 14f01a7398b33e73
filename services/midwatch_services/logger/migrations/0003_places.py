"""Each event's place in the log and its leaf; on PostgreSQL a partition for each month."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0003"
down_revision = "logger_0002"

_COLUMNS = "agent, id, run_id, event, seq, time, stored_at, mode, version, ticket, note, body"


def upgrade() -> None:
    op.create_table(
        "logger_streams",
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("created", sa.Text, nullable=False),
    )
    op.add_column("logger_runs", sa.Column("month", sa.Text, nullable=False, server_default=""))
    op.execute(
        "UPDATE logger_runs SET month = coalesce((SELECT substr(min(e.stored_at), 1, 7) FROM logger_events e "
        "WHERE e.agent = logger_runs.agent AND e.run_id = logger_runs.run_id), substr(first_at, 1, 7))"
    )
    op.drop_index("logger_events_run", "logger_events")
    op.rename_table("logger_events", "logger_events_before")
    postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "logger_events",
        *[sa.Column(name, sa.Text, nullable=False) for name in ("agent", "id", "run_id", "event")],
        sa.Column("seq", sa.BigInteger, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("time", "stored_at", "mode", "version")],
        sa.Column("ticket", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("month", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("leaf", sa.LargeBinary),
        # PostgreSQL can keep what is unique apart within a partition only.
        sa.PrimaryKeyConstraint("agent", "id", *(["month"] if postgres else []), name="logger_events_once"),
        postgresql_partition_by="LIST (month)",
    )
    if postgres:
        found = (
            "SELECT month FROM logger_runs UNION SELECT substr(e.stored_at, 1, 7) FROM logger_events_before e "
            "WHERE NOT EXISTS (SELECT 1 FROM logger_runs r WHERE r.agent = e.agent AND r.run_id = e.run_id)"
        )
        months = op.get_bind().execute(sa.text(found)).scalars().all()
        for month in months:
            name = f"logger_events_{month.replace('-', '_')}"
            op.execute(f"CREATE TABLE {name} PARTITION OF logger_events FOR VALUES IN ('{month}')")
    columns = ", ".join(f"e.{name}" for name in _COLUMNS.split(", "))
    op.execute(
        f"INSERT INTO logger_events ({_COLUMNS}, place, month) SELECT {columns}, 0, "  # noqa: S608
        "coalesce(r.month, substr(e.stored_at, 1, 7)) "
        "FROM logger_events_before e LEFT JOIN logger_runs r ON r.agent = e.agent AND r.run_id = e.run_id"
    )
    op.drop_table("logger_events_before")
    op.create_index("logger_events_run", "logger_events", ["agent", "run_id"])
    op.create_index("logger_events_place", "logger_events", ["place"])


def downgrade() -> None:
    raise NotImplementedError("an event's leaf cannot be taken back: restore the backup made before the upgrade")
