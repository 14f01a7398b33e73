"""PostgreSQL keeps events in one partition a month, so that old ones go by dropping a table. SQLite has one table."""

from collections.abc import Iterable

from sqlalchemy.engine import Connection

_there: set[tuple[str, str]] = set()  # (database, month) of partitions that were seen to be there


def partition(month: str) -> str:
    """The table that holds the runs of a month, such as 2026-11."""
    return f"logger_events_{month.replace('-', '_')}"


def make_partitions(conn: Connection, months: Iterable[str]) -> None:
    """Makes the partitions that are not there yet; `months` come from the server's clock, never from an agent."""
    if conn.dialect.name == "sqlite":
        return
    where = conn.engine.url.render_as_string(hide_password=True)
    for month in months:
        if (where, month) in _there:
            continue
        name = partition(month)
        if conn.exec_driver_sql("SELECT to_regclass(%s)", (name,)).scalar():
            _there.add((where, month))  # committed: one made here may yet be rolled back
            continue
        conn.exec_driver_sql(f"CREATE TABLE {name} PARTITION OF logger_events FOR VALUES IN ('{month}')")
