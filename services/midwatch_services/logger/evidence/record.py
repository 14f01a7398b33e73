"""One event of the log as it stands there, examined: what it hashes to, and whether it agrees with itself. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ..decide import clock_note
from ..places import sequence, stream_of
from .leaf import content_hash, leaf_hash

LEAF_COLUMNS = ("id", "run_id", "event", "seq", "time", "stored_at", "mode", "version")


class Record(NamedTuple):
    """An event of the log. `leaf`: what it hashes to now. `wrong`: what in it does not agree, in words. `erased`: the
    erasure that blanked it. `is_proved`: there was evidence when it was stored."""

    agent: str
    id: str
    run_id: str
    event: str
    stored_at: str
    place: int
    leaf: bytes
    content: bytes
    wrong: str
    erased: str
    is_proved: bool
    inputs: tuple[Any, ...]

    def leaf_at(self, place: int) -> bytes:
        """What it would hash to at another place."""
        return _leaf(self.agent, self.inputs, place, self.content)

    def __str__(self) -> str:
        return f"event {self.event} {self.id} of run {self.run_id} (agent {self.agent}, {where(self.place)}, stored {self.stored_at})"  # noqa: E501


class _Data(msgspec.Struct, frozen=True):
    ticket: str | None = None


class _Body(msgspec.Struct, frozen=True):
    data: _Data = _Data()
    erased: str = ""
    content: str = ""


_body = msgspec.json.Decoder(_Body).decode


def where(place: int) -> str:
    """A place in words: the sequence of the message in its stream."""
    stream = stream_of(place)
    if stream < 1:
        return "no place"
    return f"sequence {sequence(place)}" if stream == 1 else f"sequence {sequence(place)} of stream {stream}"


def examine(row: Mapping[str, Any]) -> Record:
    """A row of `logger_events`, texts as str or bytes; `run_month`: the month of its run's row, None where none is."""
    agent = text(row["agent"])
    inputs = tuple(text(row[name]) for name in LEAF_COLUMNS)
    place = row["place"] if isinstance(row["place"], int) else -1
    body, salt, kept = _bytes(row["body"]), row["salt"], row["leaf"]
    read = _read(body)
    is_erased = salt is None and bool(read and read.erased)
    content = _content(body, salt, read)
    leaf = _leaf(agent, inputs, place, content)
    is_proved = not (kept is None and salt is None and place == 0)
    wrong = _wrong(row, inputs, read, is_erased)
    if is_proved and not wrong and (kept is None or bytes(kept) != leaf):
        wrong = "it does not hash to the leaf beside it"
    return Record(
        agent, str(inputs[0]), str(inputs[1]), str(inputs[2]), str(inputs[5]), place, leaf, content, wrong,
        read.erased if read and is_erased else "", is_proved, inputs,
    )  # fmt: skip


def text(value: Any) -> Any:
    """Text as the log wrote it; what is none shows as what it is."""
    return bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, (bytes, memoryview)) else value


def _leaf(agent: str, inputs: tuple[Any, ...], place: int, content: bytes) -> bytes:
    id, run_id, event, seq, time, stored_at, mode, version = inputs
    return leaf_hash(agent, id, run_id, event, seq, time, stored_at, place, mode, version, content)


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value or b"")


def _read(body: bytes) -> _Body | None:
    try:
        return _body(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _content(body: bytes, salt: Any, read: _Body | None) -> bytes:
    if salt is not None:
        return content_hash(_bytes(salt), body)
    try:
        return bytes.fromhex(read.content) if read else b""
    except ValueError:
        return b""


def _wrong(row: Mapping[str, Any], inputs: tuple[Any, ...], read: _Body | None, is_erased: bool) -> str:
    """Of the columns that no leaf holds: each follows from those that it holds."""
    ticket, note = text(row["ticket"]), text(row["note"])
    if is_erased:
        return "it was erased, but for its ticket or note" if (ticket, note) != (None, None) else ""
    told = read.data.ticket if read else None
    if ticket != (told.replace("\0", "\ufffd") if told else told):
        return "its ticket is not the one in its text"
    if note != _note(inputs):
        return "its note does not follow from its times"
    if row["run_month"] is not None and text(row["month"]) != text(row["run_month"]):
        return "its month is not that of its run"
    return ""


def _note(inputs: tuple[Any, ...]) -> str | None:
    _, _, _, _, time, stored_at, mode, _ = inputs
    try:
        return clock_note(datetime.fromisoformat(time), datetime.fromisoformat(stored_at), mode)
    except (ValueError, TypeError):
        return None
