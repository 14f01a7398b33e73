"""What a run is found by: its reading, a full-text index of its words, what reviewers said, and quick lists."""

import sqlalchemy as sa
from alembic import op

revision = "logger_0005"
down_revision = "logger_0004"


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    if not sa.inspect(op.get_bind()).has_table("logger_cursors"):
        op.create_table(
            "logger_cursors",
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("place", sa.BigInteger, nullable=False),
        )
    op.create_table(
        "logger_unread",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("touched", sa.Text, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("times", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "logger_readings",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("tools", sa.Text, nullable=False),
        sa.Column("text", sa.LargeBinary),
    )
    op.create_index("logger_readings_run", "logger_readings", ["agent", "run_id"], unique=True)
    if postgres:
        op.execute("ALTER TABLE logger_readings ADD COLUMN words tsvector")
        op.execute("CREATE INDEX logger_words ON logger_readings USING gin (words)")
    else:
        op.execute(
            "CREATE VIRTUAL TABLE logger_words "
            "USING fts5(words, content='', columnsize=0, tokenize='ascii', prefix='3')"
        )
    op.create_table(
        "logger_reviews",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("sampled_key", sa.Text, nullable=False),
        sa.Column("sampled_at", sa.Text),
        sa.Column("judged_key", sa.Text, nullable=False),
        sa.Column("judged_at", sa.Text),
        sa.Column("judged_by", sa.Text),
        sa.Column("verdict", sa.Text),
        sa.Column("note", sa.Text),
    )
    op.drop_index("logger_runs_first_at", "logger_runs")
    op.create_index("logger_runs_first_at", "logger_runs", ["first_at", "run_id"])
    op.create_index("logger_runs_agent", "logger_runs", ["agent", "first_at", "run_id"])
    op.create_index(
        "logger_runs_customer", "logger_runs", ["customer"],
        sqlite_where=sa.text("customer IS NOT NULL"), postgresql_where=sa.text("customer IS NOT NULL"),
    )  # fmt: skip
    op.execute(
        "INSERT INTO logger_unread (agent, run_id, since, touched, done, times) "
        "SELECT agent, run_id, last_at, last_at, 1, 1 FROM logger_runs"
    )


def downgrade() -> None:
    raise NotImplementedError("what was read of runs cannot be taken back: restore the backup made before the upgrade")
