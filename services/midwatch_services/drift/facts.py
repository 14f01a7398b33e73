"""What is kept of one run, so that 28 days need not be read again each day. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from midwatch.contracts.runs import Mode

from . import text
from .policy import POLICY

RUN = Mapping[str, Any]  # as `logger.store.read_runs` gives it
EVENT = Mapping[str, Any]  # as `logger.store.read_events` gives it


class Facts(Struct, frozen=True, kw_only=True):
    """One run that has ended. None is unknown, which is never 0. `words`: stems, each as the customer wrote it.
    `draw`: a number from 0 up to 1 that follows from the run's id, to sample by. `customer`: who the run, or another of
    its ticket, names."""

    agent: str
    run_id: str
    mode: Mode
    version: str
    ticket: str | None
    ended_at: str  # RFC 3339, UTC
    resolution: str
    handed_off: bool
    tools: dict[str, int]
    cost: float | None  # US dollars
    tokens: int | None
    written: int | None  # of them, by the model
    seconds: float | None  # from start to end
    call_seconds: float | None  # of a model call, on average
    messages: int
    answers: int  # of them, the agent's
    characters: int  # of these
    language: str
    words: dict[str, str]
    draw: float
    customer: str | None = None

    @property
    def day(self) -> str:
        return self.ended_at[:10]

    @property
    def person(self) -> str:
        """Who wrote, as far as it is known: runs of the same are surely not of two."""
        return f"c{self.customer}" if self.customer else f"t{self.ticket}" if self.ticket else f"r{self.run_id}"

    @property
    def calls(self) -> int:
        return sum(self.tools.values())

    @property
    def answer(self) -> float | None:
        """Characters of an answer, on average."""
        return self.characters / self.answers if self.answers else None


def of(run: RUN, events: Sequence[EVENT]) -> Facts:
    """The facts of a run that has ended, from what the log says of it."""
    tools: Counter[str] = Counter()
    customer: list[str] = []
    characters = answers = messages = 0
    for event in events:
        data = event["data"]
        if event["event"] == "tool_called":
            name = str(data.get("tool", ""))[: POLICY.name_kept]
            if name in tools or len(tools) < POLICY.tools_kept:
                tools[name] += 1
        elif event["event"] == "said":
            messages += 1
            if data.get("by") == "agent":
                answers += 1
                characters += len(str(data.get("text", "")))
            elif data.get("by") == "customer":
                customer.append(str(data.get("text", "")))
    wrote = text.joined(customer or _input(events))
    spoken = text.language(wrote)
    tokens = run["input_tokens"] + run["output_tokens"]
    return Facts(
        agent=run["agent"], run_id=run["run_id"], mode=run["mode"], version=run["version"], ticket=run["ticket"],
        ended_at=run["ended_at"], resolution=run["resolution"], handed_off=run["handed_off_to"] is not None,
        tools=dict(tools), cost=_cost(run), tokens=tokens or None,
        written=run["output_tokens"] or None, seconds=_seconds(run["latency_ms"]), call_seconds=_call_seconds(run),
        messages=messages, answers=answers, characters=characters, language=spoken, words=text.words(wrote, spoken),
        draw=draw_of(run["run_id"]), customer=run["customer"],
    )  # fmt: skip


def draw_of(run_id: str) -> float:
    """A number from 0 up to 1 that follows from the run's id."""
    digest = blake2b(run_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _cost(run: RUN) -> float | None:
    # A part that has no price makes the sum a lower bound, which compares with nothing.
    if run["cost_usd"] is None or run["unpriced_calls"]:
        return None
    cost = float(run["cost_usd"])
    return cost if cost < POLICY.cost_most else None


def _seconds(milliseconds: float | None) -> float | None:
    # A clock that was set back between start and end says nothing of how long it took.
    return None if milliseconds is None or milliseconds <= 0 else milliseconds / 1000


def _call_seconds(run: RUN) -> float | None:
    return run["model_ms"] / 1000 / run["model_calls"] if run["model_ms"] and run["model_calls"] else None


def _input(events: Sequence[EVENT]) -> list[str]:
    """What the run began with, where the customer is not heard otherwise."""
    started: Mapping[str, Any] = next((event["data"] for event in events if event["event"] == "started"), {})
    given = started.get("input")
    if isinstance(given, str):
        return [given]
    said = [one for one in given or () if isinstance(one, dict) and one.get("role") == "user"]
    return [one["content"] for one in said if isinstance(one.get("content"), str)]
