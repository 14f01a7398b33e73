"""What the replay and the process of the agent's code tell one another: one JSON object a line, over a pipe of their
own."""

from typing import Any

import msgspec
from msgspec import Struct

from .billed import Billed
from .case import Case, Missing
from .outcome import Called

BEAT = 0.25  # seconds between two signs of life
LINE_LIMIT = 256 * 1024 * 1024  # bytes of a case, or of what an agent did with it


class Do(Struct, frozen=True, kw_only=True):
    """Replay this case once."""

    id: int
    case: Case
    version: str = ""
    missing: Missing | None = None


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the agent did. `stuck`: what did not answer in time may still be running."""

    said: list[str] = []
    calls: list[Called] = []
    handed_off: bool = False
    billed: list[Billed] = []
    seconds: float = 0.0
    error: str | None = None
    stuck: bool = False


class Ready(Struct, frozen=True, kw_only=True, tag="ready"):
    """The agent's code is loaded; `wrong` says why not."""

    wrong: str = ""


class Beat(Struct, frozen=True, kw_only=True, tag="beat"):
    """The process is not blocked."""


class Did(Struct, frozen=True, kw_only=True, tag="did"):
    """How one attempt went."""

    id: int
    report: Report


_encoder = msgspec.json.Encoder()
read_order = msgspec.json.Decoder(Do).decode
read_news = msgspec.json.Decoder(Ready | Beat | Did).decode


def line(message: Any) -> bytes:
    """A message as it goes over the pipe."""
    return _encoder.encode(message) + b"\n"
