"""`midwatch digest`: what agents did on a day, in plain sentences, made from the log on the spot."""

from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from .output import USAGE, JsonOption, console, emit_json, emit_table, fail

if TYPE_CHECKING:
    from midwatch.contracts.reviews import DigestWritten
    from midwatch.runtime.settings import Settings
    from midwatch_services.digest.decide import Digest


class Format(StrEnum):
    """How a digest is written."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("digest")(digest)


def digest(
    date: Annotated[
        str | None, typer.Option("--date", help="The day, as 2026-11-25. Default: yesterday.", metavar="DATE")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's. Default: the whole shop.")] = None,
    format: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.TEXT,
    out: Annotated[Path | None, typer.Option("--out", help="Write it into this file.")] = None,
    words: Annotated[
        int | None, typer.Option(min=100, max=2000, help="At most so many. Default: MIDWATCH_DIGEST_WORDS, or 2000.")
    ] = None,
    mode: Annotated[str, typer.Option(help="live, shadow, eval, drill or replay.")] = "live",
    sent: Annotated[
        bool, typer.Option("--sent", help="The one that was sent, as it was; without --date a list of them.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell what agents did on a day, in ten minutes: what went wrong, what waits, what changed, what it cost.

    It is made from the run log, whether the services run or not. A day without runs is a digest that says so. Exit code
    1 where there is no log or no such digest was sent, 2 for a date that is none.

    Example: midwatch digest --agent refund-desk --date 2026-11-25 --format html --out digest.html
    """
    from typing import get_args

    from midwatch.contracts.runs import Mode
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName
    from midwatch.runtime.settings import Settings

    settings = Settings()
    if agent is not None and not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)
    if mode not in get_args(Mode):
        fail(f"--mode {mode!r} is none of {', '.join(get_args(Mode))}", USAGE)
    form = Format.JSON if as_json else format
    if sent:
        _sent(settings, None if date is None else _day(date, settings).isoformat(), agent, form, out)
        return
    found = _made(settings, _day(date, settings), agent, mode, words)
    _give(_written(found, form, settings.console_url), out)


def _day(text: str | None, settings: "Settings") -> date:
    if text is None:
        return datetime.now(ZoneInfo(settings.digest_zone)).date() - timedelta(days=1)
    try:
        found = date.fromisoformat(text)
    except ValueError:
        fail(f"--date {text!r} is no day such as 2026-11-25", USAGE)
    if not 1971 <= found.year <= 9998:
        fail(f"--date {text!r} is no day of an agent: use one such as 2026-11-25", USAGE)
    return found


def _made(settings: "Settings", day: date, agent: str | None, mode: str, words: int | None) -> "Digest":
    from dataclasses import replace

    from midwatch.contracts.envelope import utc_now
    from midwatch.errors import MidwatchError
    from midwatch_services.digest.app import policy_of
    from midwatch_services.digest.sources import Sources

    policy = policy_of(settings)
    policy = policy if words is None else replace(policy, words=words)
    budget = settings.fleet_budget_day if agent is None else None  # an agent's stands in its card, on NATS
    try:
        with Sources(settings, policy) as sources:
            return sources.digest(day, agent, utc_now(), mode=mode, budget=budget)
    except MidwatchError as error:
        fail(str(error))


def _written(found: "Digest", form: Format, console_url: str | None) -> str:
    from midwatch_services.digest import render
    from midwatch_services.digest.readability import grade

    if form is Format.JSON:
        import msgspec

        shown = {**msgspec.to_builtins(found), "words": found.words}
        shown["grade"] = round(grade(one.text for one in found.sentences), 1)
        return msgspec.json.encode(shown).decode() + "\n"
    write = {Format.TEXT: render.text, Format.MARKDOWN: render.markdown, Format.HTML: render.html}[form]
    return write(found, console_url)


def _sent(settings: "Settings", day: str | None, agent: str | None, form: Format, out: Path | None) -> None:
    """What was published: one of it, or a list."""
    from sqlalchemy.exc import DBAPIError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch_services.digest import store

    wanted = agent if day is None or agent else subjects.FLEET
    try:
        database = Database(settings.database_for(subjects.DIGEST), name=subjects.DIGEST, must_exist=True)
    except MidwatchError as error:
        fail(str(error))
    try:
        found = database.read_now(lambda conn: store.read(conn, day=day, agent=wanted))
    except DBAPIError:
        fail(f"no digest was written in {database.where} yet: start the service with `midwatch run digest`")
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()
    if day is None:
        _list(found, form)
    elif not found:
        fail(f"no digest of {wanted} was sent for {day}: list them with `midwatch digest --sent`")
    else:
        _give(_as_sent(found[0].data, form), out)


def _list(found: list[Any], form: Format) -> None:
    rows = [
        {"date": one.data.date, "agent": one.data.agent, "words": one.data.words, "title": one.data.title,
         "written": f"{one.written_at:%Y-%m-%d %H:%M}"}
        for one in found
    ]  # fmt: skip
    if form is Format.JSON:
        emit_json(rows)
    else:
        emit_table(("date", "agent", "words", "title", "written"), rows, empty="No digest was sent yet.")


def _as_sent(data: "DigestWritten", form: Format) -> str:
    if form is Format.JSON:
        import msgspec

        return msgspec.json.encode(data).decode() + "\n"
    return {Format.TEXT: data.text, Format.MARKDOWN: data.markdown, Format.HTML: data.html}[form]


def _give(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {(error.strerror or str(error)).lower()}")
    console.print(f"{out}: written.", markup=False)
