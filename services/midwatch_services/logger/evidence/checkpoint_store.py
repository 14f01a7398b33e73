"""The checkpoints' tables, and how far each sink has come."""

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from . import chain_store, checkpoints
from .chain import Tail


def last(conn: Connection) -> Checkpoint | None:
    """The newest checkpoint."""
    query = sa.text("SELECT line FROM logger_checkpoints ORDER BY number DESC LIMIT 1")
    found = conn.execute(query).scalar()
    return checkpoints.read(found) if found else None


def get(conn: Connection, number: int) -> Checkpoint | None:
    """The checkpoint of that number."""
    found = conn.execute(sa.text("SELECT line FROM logger_checkpoints WHERE number = :n"), {"n": number}).scalar()
    return checkpoints.read(found) if found else None


def after(conn: Connection, number: int, most: int) -> list[Checkpoint]:
    """Those after `number`, at most so many."""
    query = sa.text("SELECT line FROM logger_checkpoints WHERE number > :number ORDER BY number LIMIT :most")
    found = conn.execute(query, {"number": number, "most": most}).scalars()
    return [one for one in map(checkpoints.read, found) if one]


def each(conn: Connection) -> Iterator[Checkpoint | None]:
    """All of them, in order; None for a row that is none."""
    query = sa.text("SELECT line FROM logger_checkpoints ORDER BY number")
    with conn.execute(query, execution_options={"yield_per": 500}) as found:
        for row in found:
            yield checkpoints.read(row[0])


def moved(conn: Connection) -> dict[str, Tail]:
    """The heads that no checkpoint names yet."""
    return {agent: tail for agent, tail in chain_store.tails(conn).items() if tail.number > _named(conn, agent)}


def first_naming(conn: Connection, agent: str, block: int) -> Checkpoint | None:
    """The first checkpoint that names a head of the agent at or after the block."""
    query = sa.text(
        "SELECT checkpoint FROM logger_checkpoint_heads WHERE agent = :agent AND block >= :block ORDER BY block LIMIT 1"
    )
    number = conn.execute(query, {"agent": agent, "block": block}).scalar()
    return get(conn, int(number)) if number is not None else None


def add(conn: Connection, checkpoint: Checkpoint) -> bool:
    """Keeps a checkpoint; False, and nothing is done, where another process made one meanwhile."""
    before = last(conn)
    if (checkpoints.digest(before) if before else checkpoints.NONE) != checkpoint.previous:
        return False
    conn.execute(
        sa.text("INSERT INTO logger_checkpoints (number, at, line) VALUES (:number, :at, :line)"),
        {"number": checkpoint.number, "at": checkpoint.at, "line": checkpoints.line(checkpoint)},
    )
    conn.execute(
        sa.text("INSERT INTO logger_checkpoint_heads (agent, block, checkpoint) VALUES (:agent, :block, :checkpoint)"),
        [
            {"agent": agent, "block": number, "checkpoint": checkpoint.number}
            for agent, (number, _) in checkpoint.heads.items()
        ],
    )
    return True


def _named(conn: Connection, agent: str) -> int:
    query = sa.text("SELECT block FROM logger_checkpoint_heads WHERE agent = :agent ORDER BY block DESC LIMIT 1")
    return int(conn.execute(query, {"agent": agent}).scalar() or 0)
