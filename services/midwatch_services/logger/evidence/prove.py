"""Makes the proof of one run from the log, and says whether the run's row agrees with its events."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from midwatch.contracts import codec, subjects
from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from ..decide import RunRow, fold, text_of
from . import chain, chain_store, checkpoint_store, proof
from .chain import Block
from .record import Record, examine
from .source import row_of, select

# What the events of a run decide alone; the rest follows from prices and cards, which may have changed since.
_ALONE = (
    "head_key", "version", "mode", "ticket_key", "ticket", "session_key", "session", "started_key", "started_id",
    "started_at", "channel", "customer", "finished_key", "finished_id", "ended_at", "resolution", "error", "halted_by",
    "epoch", "handed_off_key", "handed_off_to", "handed_off_reason", "first_at", "last_at", "input_tokens",
    "output_tokens", "model_calls", "model_errors", "tool_calls", "tool_errors", "messages", "events", "model_us",
    "tool_us",
)  # fmt: skip


def prove(conn: Connection, agent: str, run_id: str) -> dict[str, Any]:
    """The proof of a run, as `proof.check` takes it under the key `proof` of a dossier."""
    rows = read_rows(conn, agent, run_id)
    records = [examine(row) for row in rows]
    blocks = _blocks_of(conn, agent, [one.place for one in records if one.is_proved])
    events = [proof.of_event(row, record, blocks.get(record.place)) for row, record in zip(rows, records, strict=True)]
    numbers = {block.number for block in blocks.values()} | _erasures(conn, agent, records)
    segments = [proof.segment(headers, checkpoint) for headers, checkpoint in _segments(conn, agent, numbers)]
    return {"version": proof.VERSION, "agent": agent, "run_id": run_id, "events": events, "segments": segments}


def read_rows(conn: Connection, agent: str, run_id: str) -> list[dict[str, Any]]:
    """The events of a run as they stand in the log, by place."""
    query = sa.text(f"{select(conn)} WHERE e.agent = :agent AND e.run_id = :run_id ORDER BY e.place, e.id")
    return [row_of(row) for row in conn.execute(query, {"agent": agent, "run_id": run_id})]


def agents_of(conn: Connection, run_id: str) -> list[str]:
    """Those that have a run of this id, by its row or by an event."""
    query = sa.text(
        "SELECT agent FROM logger_runs WHERE run_id = :run_id "
        "UNION SELECT agent FROM logger_events WHERE run_id = :run_id ORDER BY 1"
    )
    return list(conn.execute(query, {"run_id": run_id}).scalars())


def disagreeing(conn: Connection, agent: str, run_id: str) -> list[str]:
    """Where the run's row is not what its events make of it, in sentences. A run of which a text was erased is passed
    over: what the row was made of is gone."""
    rows = read_rows(conn, agent, run_id)
    names = ", ".join(_ALONE)
    query = sa.text(f"SELECT {names} FROM logger_runs WHERE agent = :agent AND run_id = :run_id")  # noqa: S608
    found = conn.execute(query, {"agent": agent, "run_id": run_id}).first()
    if found is None:
        return [f"the row of run {run_id} is missing, and {len(rows)} of its events are there"]
    made = RunRow(agent=agent, run_id=run_id)
    for row in rows:
        record = examine(row)
        if record.erased:
            return []
        body = row["body"] if isinstance(row["body"], bytes) else str(row["body"]).encode()
        try:
            event = codec.decode_run(subjects.run(record.agent, record.event), body)
        except codec.Refused:
            return [f"{record} cannot be read, so that the run's row cannot be compared"]
        made = fold(made, [(event, text_of(event.time))])
    differ = [name for name in _ALONE if getattr(found, name) != _kept(getattr(made, name))]
    if "events" in differ:
        return [f"the row of run {run_id} counts {found.events} events, and {len(rows)} are there"]
    return [f"the {name} in the row of run {run_id} is not what its events make of it" for name in differ]


def _kept(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _blocks_of(conn: Connection, agent: str, places: list[int]) -> dict[int, Block]:
    """By place, the block that has it."""
    found: dict[int, Block] = {}
    passed, wanted = chain_store.cursor(conn, chain_store.SEQUENCER), set(places)
    for place in places:
        if place in found or place > passed:
            continue
        block = chain_store.block_of(conn, agent, place)
        if block is not None:
            found |= {one: block for one, _ in chain.entries(block.leaves) if one in wanted}
    return found


def _segments(
    conn: Connection, agent: str, numbers: Collection[int]
) -> Iterator[tuple[list[Block], Checkpoint | None]]:
    """Blocks from each of `numbers` to the one that the next checkpoint names, and that checkpoint."""
    covered = 0
    for number in sorted(numbers):
        if number <= covered:
            continue
        checkpoint = checkpoint_store.first_naming(conn, agent, number)
        covered = checkpoint.heads[agent][0] if checkpoint else max(numbers)
        yield list(chain_store.blocks(conn, agent, number, covered)), checkpoint


def _erasures(conn: Connection, agent: str, records: list[Record]) -> set[int]:
    """The blocks that tell of what was erased of the run."""
    erased = {record.place for record in records if record.erased}
    if not erased:
        return set()
    query = sa.text("SELECT number, note FROM logger_blocks WHERE agent = :agent AND kind = 'erasure' ORDER BY number")
    found = conn.execute(query, {"agent": agent})
    return {number for number, note in found if erased & set(msgspec.json.decode(note).get("places", ()))}
