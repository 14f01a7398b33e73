"""The chain's tables: appended to under the log's write lock, read in order. Its rows are never changed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts.envelope import utc_now

from .. import tables
from ..cursors import cursor as cursor
from ..cursors import move_cursor as move_cursor
from ..decide import text_of
from . import chain
from .chain import Block, Part, Tail

SEQUENCER = "sequencer"  # its cursor: all events up to that place are in the chain, or wait in `logger_late`

COLUMNS = tuple(tables.Block.__table__.columns.keys())
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM logger_blocks"  # noqa: S608
_INSERT = sa.text(
    f"INSERT INTO logger_blocks ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)})"  # noqa: S608
)
# One look into the index for each agent: a chain has a block a second.
AGENTS = """
    WITH RECURSIVE each_agent(agent) AS (
        SELECT min(agent) FROM logger_blocks
        UNION ALL SELECT (SELECT min(b.agent) FROM logger_blocks b WHERE b.agent > e.agent)
        FROM each_agent e WHERE e.agent IS NOT NULL
    ) SELECT agent FROM each_agent WHERE agent IS NOT NULL ORDER BY agent
"""


def append_note(conn: Connection, agent: str, kind: chain.Kind, note: Any, at: datetime | None = None) -> Block:
    """Appends a block that says what was done to the agent's events, within the caller's `Database.write`.

    `note`: what `chain.erasure_note` or `chain.removal_note` made; for `imported` any JSON.
    """
    made_at = text_of(at or utc_now())
    block = chain.append_note(tail(conn, agent), agent, kind, chain.encode_note(note), made_at)
    _insert(conn, [block])
    return block


def append_parts(conn: Connection, parts: Sequence[Part], at: datetime) -> list[Block]:
    """Appends blocks of events, each to the chain of its agent, in their order."""
    tails: dict[str, Tail] = {}
    blocks = []
    for part in parts:
        before = tails.get(part.agent) or tail(conn, part.agent)
        block = chain.append_part(before, part, text_of(at))
        tails[part.agent] = Tail(block.number, block.head)
        blocks.append(block)
    _insert(conn, blocks)
    return blocks


def tail(conn: Connection, agent: str) -> Tail:
    """Where the agent's chain ends."""
    query = sa.text("SELECT number, head FROM logger_blocks WHERE agent = :agent ORDER BY number DESC LIMIT 1")
    row = conn.execute(query, {"agent": agent}).first()
    return Tail(row[0], bytes(row[1])) if row else Tail()


def tails(conn: Connection) -> dict[str, Tail]:
    """Where each agent's chain ends."""
    return {agent: tail(conn, agent) for agent in agents(conn)}


def agents(conn: Connection) -> list[str]:
    """The agents that have a chain, by name."""
    return list(conn.execute(sa.text(AGENTS)).scalars())


def blocks(conn: Connection, agent: str, first: int = 1, last: int = 2**62) -> Iterator[Block]:
    """The agent's blocks by number."""
    query = sa.text(f"{_SELECT} WHERE agent = :agent AND number >= :first AND number <= :last ORDER BY number")
    given = {"agent": agent, "first": first, "last": last}
    with conn.execute(query, given, execution_options={"yield_per": 50}) as found:
        for row in found:
            yield as_block(row)


def blocks_by_place(conn: Connection, agent: str | None = None) -> Iterator[Block]:
    """The blocks of events by their first place: the order in which their leaves can be merged."""
    mine = "AND agent = :agent" if agent else ""
    query = sa.text(f"{_SELECT} WHERE kind = 'events' {mine} ORDER BY first_place, agent, number")
    with conn.execute(query, {"agent": agent} if agent else {}, execution_options={"yield_per": 50}) as found:
        for row in found:
            yield as_block(row)


def block_of(conn: Connection, agent: str, place: int) -> Block | None:
    """The block that holds the leaf of the agent's event at `place`."""
    query = sa.text(
        f"{_SELECT} WHERE first_place <= :place AND last_place >= :place AND agent = :agent AND kind = 'events' "
        "ORDER BY first_place DESC"
    )
    with conn.execute(query, {"agent": agent, "place": place}, execution_options={"yield_per": 4}) as found:
        for row in found:
            block = as_block(row)
            if any(one == place for one, _ in chain.entries(block.leaves)):
                return block
    return None


def note_late(conn: Connection, rows: Iterable[tuple[str, int, bytes]]) -> None:
    """Remembers (agent, place, leaf) of events stored at a place that the sequencer has passed: they are chained next.

    Within the transaction that stores them, under the log's write lock.
    """
    passed = cursor(conn, SEQUENCER)
    late = [{"agent": agent, "place": place, "leaf": leaf} for agent, place, leaf in rows if place <= passed]
    if late:
        conn.execute(
            sa.text(
                "INSERT INTO logger_late (place, agent, leaf) VALUES (:place, :agent, :leaf) ON CONFLICT DO NOTHING"
            ),
            late,
        )


def as_block(row: Sequence[Any]) -> Block:
    """A row of `logger_blocks`; what an attacker made of it is still a block, if a wrong one."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name in ("leaves", "root", "previous", "head"):
        value = values[name]
        values[name] = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value or b"")
    return Block(**values)


def _insert(conn: Connection, made: Sequence[Block]) -> None:
    if made:
        conn.execute(_INSERT, [{name: getattr(block, name) for name in COLUMNS} for block in made])
