"""Chains that come with an export."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..evidence import chain, chain_store
from ..evidence.chain import Block, Tail
from .files import Damaged, read_lines, read_rows
from .layout import CHECKPOINTS

_LATE = sa.text(
    "INSERT INTO logger_late (place, agent, leaf) SELECT place, agent, leaf FROM logger_events "
    "WHERE place > :after AND place <= :upto AND leaf IS NOT NULL ON CONFLICT DO NOTHING"
)
_ADD = sa.text(
    f"INSERT INTO logger_blocks ({', '.join(chain_store.COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in chain_store.COLUMNS)})"
)


def read_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a file, each agent's in order. Raises Damaged."""
    for row in read_rows(path, chain_store.COLUMNS):
        yield Block(**row)


def checked(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks of one agent. Raises Damaged at the first that is not what the chain says."""
    tail = Tail()
    for block in blocks:
        if broken := next(iter(chain.check([block], tail)), None):
            raise Damaged(f"block {broken.number} of the chain of {broken.agent} is broken: {broken.what}")
        tail = Tail(block.number, block.head)
        yield block


def take_over(conn: Connection, agent: str, blocks: Iterable[Block]) -> bool:
    """Makes an agent's chain that of the export; False where it has one here.

    The sequencer is put behind it, so that it chains none of it again; what it had not come to yet it chains next.
    """
    if chain_store.tail(conn, agent).number:
        return False
    upto = 0
    for block in blocks:
        conn.execute(_ADD, {name: getattr(block, name) for name in chain_store.COLUMNS})
        upto = max(upto, block.last_place)
    before = chain_store.cursor(conn, chain_store.SEQUENCER)
    if upto > before:
        conn.execute(_LATE, {"after": before, "upto": upto})
        chain_store.move_cursor(conn, chain_store.SEQUENCER, before, upto)
    return True


def not_in_chain(conn: Connection, agent: str, leaves: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Those of the leaves, with their places, that the agent's chain has not."""
    if not leaves:
        return []
    query = sa.text(
        "SELECT leaves FROM logger_blocks WHERE agent = :agent AND kind = 'events' AND first_place <= :last "
        "AND last_place >= :first"
    )
    given = {"agent": agent, "first": min(leaves)[0], "last": max(leaves)[0]}
    known: set[tuple[int, bytes]] = set()
    for packed in conn.execute(query, given, execution_options={"yield_per": 50}).scalars():
        known |= set(leaves) & set(chain.entries(bytes(packed)))
    return [one for one in leaves if one not in known]


class _Line(msgspec.Struct):
    number: int
    at: str
    heads: dict[str, tuple[int, str]] = {}


def take_checkpoints(conn: Connection, folder: Path) -> None:
    """Takes over the checkpoints of the export, where the log has none. Raises Damaged."""
    if conn.exec_driver_sql("SELECT count(*) FROM logger_checkpoints").scalar():
        return
    rows: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    for line in read_lines(folder / CHECKPOINTS):
        read = msgspec.json.decode(line, type=_Line)
        rows.append({"number": read.number, "at": read.at, "line": line.decode()})
        heads += [{"agent": agent, "block": block, "number": read.number} for agent, (block, _) in read.heads.items()]
    if rows:
        conn.execute(sa.text("INSERT INTO logger_checkpoints (number, at, line) VALUES (:number, :at, :line)"), rows)
    if heads:
        conn.execute(
            sa.text("INSERT INTO logger_checkpoint_heads (agent, block, checkpoint) VALUES (:agent, :block, :number)"),
            heads,
        )
