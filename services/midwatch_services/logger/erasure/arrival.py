"""What still comes of a run that was erased: blanked before it is stored, and noted, so that it is erased elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.engine import Connection

from midwatch.contracts.envelope import utc_now
from midwatch.runtime.delivery import Received

from .. import tables
from ..decide import RunRow, text_of
from . import blank, log, store
from .match import RunKey

_COLUMNS = tuple(tables.Event.__table__.columns.keys())
_AT = {name: place for place, name in enumerate(_COLUMNS)}
_GONE = ("ticket", "note", "salt")
BY = "the log, as it came"

Row = list[Any]


def blanked(row: Row, erased: Mapping[RunKey, str]) -> Row:
    """The event's columns without what it says, where its run was erased."""
    erasure = erased.get((row[0], row[2]))
    if erasure is None:
        return row
    values = list(row)
    values[_AT["body"]] = blank.body_of(erasure, row[_AT["salt"]], row[_AT["body"]])
    for name in _GONE:
        values[_AT[name]] = None
    return values


def folded(row: RunRow, erased: Mapping[RunKey, str]) -> RunRow:
    """The run without what names its customer, where it was erased."""
    return blank.run_of(row) if (row.agent, row.run_id) in erased else row


def note(
    conn: Connection, erased: Mapping[RunKey, str], batch: Sequence[Received], rows: Sequence[Row], fresh: Sequence[int]
) -> None:
    """Writes into the chains which events were blanked as they came. Those that the log had as well lie in the stream
    once more."""
    tickets: dict[RunKey, set[str]] = {}
    for received, row in zip(batch, rows, strict=True):
        if (row[0], row[2]) in erased:
            named = received.event.data.ticket
            tickets.setdefault((row[0], row[2]), set()).update([named] if named else [])
    store.note_late(conn, tickets)
    by_erasure: dict[str, list[log.Leaf]] = {}
    for at in fresh:
        row = rows[at]
        if (erasure := erased.get((row[0], row[2]))) is not None:
            leaf = log.Leaf(row[0], row[_AT["id"]], row[2], row[_AT["place"]], row[_AT["leaf"]].hex())
            by_erasure.setdefault(erasure, []).append(leaf)
    for erasure, leaves in by_erasure.items():
        log.note(conn, erasure, leaves, at=text_of(utc_now()), by=BY)
