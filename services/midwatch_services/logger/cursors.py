"""How far each follower of the log has come, by place: the sequencer, the index."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection


def cursor(conn: Connection, name: str) -> int:
    """How far a follower of the log has come."""
    query = sa.text("SELECT place FROM logger_cursors WHERE name = :name")
    return int(conn.execute(query, {"name": name}).scalar() or 0)


def move_cursor(conn: Connection, name: str, before: int, after: int) -> bool:
    """Moves a cursor from where it was read; False where somebody else has moved it since."""
    given = {"name": name, "before": before, "after": after}
    move = sa.text("UPDATE logger_cursors SET place = :after WHERE name = :name AND place = :before")
    if conn.execute(move, given).rowcount:
        return True
    make = sa.text("INSERT INTO logger_cursors (name, place) VALUES (:name, :after) ON CONFLICT DO NOTHING")
    return before == 0 and bool(conn.execute(make, given).rowcount)
