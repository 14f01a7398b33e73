"""What the tests of drift share: facts by hand, and runs in a log."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from logged import received
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.drift.facts import Facts, draw_of
from midwatch_services.logger import store as log

Made = Callable[[int], dict[str, Any]]


def facts(run_id: str, at: str = "2026-11-21T12:00:00.000000Z", **fields: Any) -> Facts:
    """A run that is like any other, unless `fields` say otherwise."""
    common: dict[str, Any] = {
        "agent": "desk", "mode": "live", "version": "1", "ticket": None, "resolution": "resolved", "handed_off": False,
        "tools": {"lookup_order": 1}, "cost": 0.01, "tokens": 1000, "written": 100, "seconds": 30.0,
        "call_seconds": 2.0, "messages": 6, "answers": 3, "characters": 600, "language": "en",
        "words": {"order": "order"}, "draw": draw_of(run_id),
    }  # fmt: skip
    return Facts(run_id=run_id, ended_at=at, **{**common, **fields})


def some(count: int, prefix: str, day: str = "2026-11-21", made: Made = lambda _: {}, **fields: Any) -> list[Facts]:
    """So many of them, a minute apart; `made` says of each by its number how it differs."""
    return [
        facts(f"{prefix}-{n}", f"{day}T{n // 60:02}:{n % 60:02}:00.000000Z", **{**fields, **made(n)})
        for n in range(count)
    ]


def log_run(
    run_id: str, ended: datetime, *, agent: str = "desk", mode: str = "live", version: str = "1",
    hand_off: bool = False, tools: Sequence[str] = ("lookup_order",), cost: str | None = "0.01",
    text: str = "Where is my order? I have been waiting for it since Monday.",
) -> list[Any]:  # fmt: skip
    """The events of one run, as the logger gets them."""
    begin = ended - timedelta(seconds=30)
    common: dict[str, Any] = {"run_id": run_id, "agent": agent, "mode": mode, "version": version}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("started", {"input": text}),
        ("said", {"by": "customer", "text": text}),
        *[("tool_called", {"tool": tool, "result": "ok"}) for tool in tools],
        (
            "model_called",
            {"model": "m", "usage": {"input_tokens": 900, "output_tokens": 100}, "latency_ms": 2000, "cost_usd": cost},
        ),
        ("said", {"by": "agent", "text": "Your order is on its way and will be there tomorrow."}),
        *([("handed_off", {"to": "human", "reason": "asked for a person"})] if hand_off else []),
        ("finished", {"resolution": "handed_off" if hand_off else "resolved"}),
    ]
    return [
        received(
            event, id=f"{agent}-{run_id}-{seq}", seq=seq, at=ended if event == "finished" else begin, **common, **data
        )
        for seq, (event, data) in enumerate(steps)
    ]


class Log:
    """A logger's database that is filled by hand."""

    def __init__(self, settings: Settings) -> None:
        url = settings.database_for("logger")
        migrate(url, "logger")
        self.database = Database(url, name="logger")

    def add(self, runs: Sequence[Sequence[Any]]) -> None:
        self.database.write_now(lambda conn: log.save(conn, [event for events in runs for event in events]))

    def add_days(
        self, first: datetime, days: int, each: int = 20, *, hand_offs: int = 2, prefix: str = "run", **fields: Any
    ) -> None:
        """So many runs on each day from `first` on, of which `hand_offs` are handed off."""
        runs = [
            log_run(
                f"{prefix}-{day:%m%d}-{n}", day + timedelta(minutes=10 * n), hand_off=n < hand_offs,
                **{"agent": "desk", **fields},
            )
            for day in (first + timedelta(days=back) for back in range(days))
            for n in range(each)
        ]  # fmt: skip
        self.add(runs)

    def close(self) -> None:
        self.database.close()
