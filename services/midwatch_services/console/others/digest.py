"""The digests that were written."""

from datetime import date

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.reviews import DigestWritten
from midwatch_services.digest import store

SERVICE = subjects.DIGEST


def of_day(conn: Connection, day: date, agent: str) -> DigestWritten | None:
    """The digest of a day, as it was sent."""
    found = store.read(conn, day=day.isoformat(), agent=agent, limit=1)
    return found[0].data if found else None


def days(conn: Connection, agent: str, limit: int = 31) -> list[date]:
    """The newest days that have one."""
    return [date.fromisoformat(one.data.date) for one in store.read(conn, agent=agent, limit=limit)]
