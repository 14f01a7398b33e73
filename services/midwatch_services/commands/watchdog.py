"""`midwatch watchdog`: what other limits would have halted, before they are let."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from .output import USAGE, JsonOption, clean, console, emit_json, emit_table, fail
from .runs import read_log, start_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from midwatch.contracts.control import Card
    from midwatch_services.cost_watchdog.trial import Stopped, Trial

_SHOWN = 20  # runs of the table unless --limit says otherwise


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    watchdog = typer.Typer(help="Try budgets and loop rules on the runs that are logged.", no_args_is_help=True)
    watchdog.callback()(lambda: None)
    watchdog.command("backtest")(backtest)
    app.add_typer(watchdog, name="watchdog")


def backtest(
    rules: Annotated[Path, typer.Option(help="A scope card with the budgets and loops to try.", metavar="FILE")],
    since: Annotated[str, typer.Option(help="A span (15m, 2h, 30d) or a time (2026-11-22T02:00).")] = "30d",
    mode: Annotated[str, typer.Option(help="Runs of this mode: live, shadow, eval, drill or replay.")] = "live",
    limit: Annotated[int, typer.Option(min=0, help="Runs in the table at most; 0 for all.")] = _SHOWN,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say what the limits of a card would have halted of the logged runs, and what that would have saved. Every rule is
    tried as if it acted, also one that the card lets only observe; nothing is halted and nobody is told.

    Example: midwatch watchdog backtest --rules agents/refund-desk.yaml --since 30d
    """
    from midwatch.contracts.runs import Mode
    from midwatch.runtime import price_book
    from midwatch.runtime.price_file import PriceErrors
    from midwatch.runtime.settings import Settings
    from midwatch_services.cards.load import CardErrors, load

    if mode not in get_args(Mode):
        fail(f"{mode!r} is no mode: write one of {', '.join(get_args(Mode))}", USAGE)
    start = start_of(since) or ""
    try:
        card = load(rules)
        price_book.use(Settings())
    except (CardErrors, PriceErrors) as error:
        fail("\nmidwatch: ".join(error.lines), USAGE)
    trial = read_log(lambda conn: _try(conn, card, mode, start))
    if as_json:
        emit_json([_summary(trial, card, since), *map(_row, trial.stopped.values())])
        return
    _print(trial, card, since, limit)


def _try(conn: "Connection", card: "Card", mode: str, start: str) -> "Trial":
    from datetime import datetime

    from midwatch.contracts import codec, subjects
    from midwatch_services.cost_watchdog.trial import Trial
    from midwatch_services.logger import store

    trial = Trial(card)
    count = store.count_events(conn, card.agent, mode, start)
    for event, stored_at, body in _with_bar(store.read_stored(conn, card.agent, mode, start), count):
        read = codec.decode_run(subjects.run(card.agent, event), body.encode())
        # A replay is stored in minutes; what an hour cost is known by the times of its events.
        trial.feed(read, read.time if mode == "replay" else datetime.fromisoformat(stored_at))
    return trial


def _with_bar(rows: Iterator[Any], count: int) -> Iterator[Any]:
    """The rows, with a progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    return iter(track(rows, "judging", total=count, console=Console(stderr=True), transient=True))


def _summary(trial: "Trial", card: "Card", since: str) -> dict[str, Any]:
    stopped = list(trial.stopped.values())
    return {
        "agent": card.agent, "since": since, "runs": trial.runs, "halted": len(stopped),
        "halted_resolved": sum(one.resolution == "resolved" for one in stopped),
        "spent_usd": trial.spent.amount, "spent_basis": trial.spent.basis,
        "saved_usd": sum(one.after.amount for one in stopped), "saved_tokens": sum(one.tokens_after for one in stopped),
        "rules": [
            {"rule": rule, "halted": len(found), "halted_resolved": sum(one.resolution == "resolved" for one in found),
             "saved_usd": sum(one.after.amount for one in found)}
            for rule, found in trial.by_rule()
        ],
    }  # fmt: skip


def _row(one: "Stopped") -> dict[str, Any]:
    return {
        "run_id": one.run_id, "rule": one.rule, "why": one.why, "spent_usd": one.before.amount,
        "saved_usd": one.after.amount, "saved_basis": one.after.basis, "saved_unpriced_calls": one.after.unpriced,
        "saved_tokens": one.tokens_after, "events_after": one.events_after, "resolution": one.resolution,
    }  # fmt: skip


def _print(trial: "Trial", card: "Card", since: str, limit: int) -> None:
    stopped = sorted(trial.stopped.values(), key=lambda one: (-one.after.amount, -one.tokens_after, one.run_id))
    if not trial.runs:
        console.print(f"No run of {card.agent} in the log since {since}: nothing to try the limits on.")
        return
    rules = [
        {
            "rule": rule, "would halt": len(found), "of those resolved": sum(o.resolution == "resolved" for o in found),
            "saved": _money(found),
        }
        for rule, found in trial.by_rule()
    ]  # fmt: skip
    emit_table(
        ("rule", "would halt", "of those resolved", "saved"), rows=rules, empty="No rule would have halted a run."
    )
    if stopped:
        shown = stopped[: limit or None]
        columns = ("run", "rule", "spent", "saved", "ended", "why")
        rows = [
            {
                "run": one.run_id, "rule": one.rule, "spent": _dollars(one, one.before), "saved": _money([one]),
                "ended": one.resolution or "", "why": one.why,
            }
            for one in shown
        ]  # fmt: skip
        console.print()
        emit_table(columns, rows, empty="")
        if len(shown) < len(stopped):
            console.print(f"… and {len(stopped) - len(shown)} more: --limit 0 shows all")
    share = len(stopped) / trial.runs
    console.print(
        f"\n{clean(card.agent)}: {len(stopped)} of {trial.runs} runs since {clean(since)} would have been halted "
        f"({share:.1%}), which would have saved {_money(stopped)}. A run that was resolved all the same is one that "
        "the limits would have cost you."
    )


def _money(stopped: "list[Stopped]") -> str:
    """What the runs spent after they would have been halted; never $0 where nobody knows."""
    from midwatch_services.cost_watchdog import say
    from midwatch_services.cost_watchdog.state import NOTHING

    total = NOTHING
    for one in stopped:
        total = total.joined(one.after)
    tokens = sum(one.tokens_after for one in stopped)
    if total.unpriced and not total.amount:
        return f"{tokens:,} tokens (no known price)"
    about = {"unpriced": "at least ", "estimated": "about "}.get(total.basis or "", "")
    return f"{about}{say.dollars(total.amount)}"


def _dollars(one: "Stopped", spent: Any) -> str:
    from midwatch_services.cost_watchdog import say

    if spent.unpriced and not spent.amount:
        return "unknown"
    return f"{'at least ' if spent.unpriced else ''}{say.dollars(spent.amount)}"
