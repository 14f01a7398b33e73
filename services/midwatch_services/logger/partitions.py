"""PostgreSQL keeps events in one partition a month, so that old ones go by dropping a table. SQLite has one table."""

from collections.abc import Iterable

from sqlalchemy.engine import Connection

_ABSENT = """
    SELECT month FROM unnest(%s::text[]) AS month WHERE NOT EXISTS (
        SELECT 1 FROM pg_inherits
        WHERE inhparent = to_regclass('logger_events')
            AND inhrelid = to_regclass('logger_events_' || replace(month, '-', '_')))
"""


def partition(month: str) -> str:
    """The table that holds the runs of a month, such as 2026-11."""
    return f"logger_events_{month.replace('-', '_')}"


def make_partitions(conn: Connection, months: Iterable[str]) -> None:
    """Makes the partitions that are not there yet; `months` come from the server's clock, never from an agent.

    The caller holds the lock of the log's writers, so that no other process makes the same.
    """
    if conn.dialect.name == "sqlite":
        return
    for (month,) in conn.exec_driver_sql(_ABSENT, (sorted(months),)).all():
        name = partition(month)
        # Attached and not made in place: that would wait for every reader, and have all others wait behind it.
        conn.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {name} (LIKE logger_events INCLUDING ALL)")
        conn.exec_driver_sql(f"ALTER TABLE logger_events ATTACH PARTITION {name} FOR VALUES IN ('{month}')")


def partitions(conn: Connection) -> list[str]:
    """The months that have a partition, oldest first; none on SQLite."""
    if conn.dialect.name == "sqlite":
        return []
    found = conn.exec_driver_sql(
        "SELECT right(inhrelid::regclass::text, 7) FROM pg_inherits WHERE inhparent = to_regclass('logger_events')"
    )
    return sorted(name.replace("_", "-") for name in found.scalars())
