"""`midwatch verify`: whether the log is as it was written, and what is not."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from .output import FAILED, USAGE, JsonOption, clean, console, count_of, emit_json, fail
from .runs import start_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.evidence.findings import Report
    from midwatch_services.logger.evidence.keys import PublicKeys
    from midwatch_services.logger.evidence.source import Tables
    from midwatch_services.logger.evidence.verify import Outside

TOLD = 20  # findings that are printed; --json has more


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("verify")(verify)


def verify(
    agent: Annotated[str | None, typer.Option(help="Only this agent's chain and events.")] = None,
    run: Annotated[str | None, typer.Option(help="One run: its events, their blocks, its row.", metavar="RUN")] = None,
    since: Annotated[str | None, typer.Option(help="Events stored since: a span (2h, 7d) or a time.")] = None,
    until: Annotated[str | None, typer.Option(help="Events stored before this time (2026-11-22T02:00).")] = None,
    export: Annotated[Path | None, typer.Option(help="An export's folder, in place of the log.", metavar="DIR")] = None,
    dossier: Annotated[Path | None, typer.Option(help="A dossier in JSON, of `midwatch why`.", metavar="FILE")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Checkpoints kept outside; default: MIDWATCH_CHECKPOINT_FILE.", metavar="FILE")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Public keys in PEM; default: beside the signing key.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check that the run log is as it was written, and name the first record that is not.

    Exit code 0 where it is whole, 1 where something was found, 2 where it could not be checked.

    Example: midwatch verify --checkpoints /mnt/elsewhere/checkpoints.jsonl
    """
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings

    settings = Settings()
    if sum(one is not None for one in (run, export, dossier)) > 1:
        fail("--run, --export and --dossier exclude one another: give one of them", USAGE)
    try:
        keys = _keys(settings, key)
        if dossier is not None:
            _dossier(dossier, keys, as_json)
        elif run is not None:
            _run(settings, run, agent, keys, as_json)
        else:
            outside = _outside(settings, checkpoints, is_export=export is not None)
            with _log(settings, export, agent, (start_of(since), _until(until))) as (log, report_of):
                report = report_of(log, keys, outside)
            _tell(report, keys, outside, as_json)
    except (MidwatchError, OSError) as error:
        fail(str(error), USAGE)


def _keys(settings: "Settings", given: Path | None) -> "PublicKeys | None":
    from midwatch_services.logger.evidence.keys import load_public, public_path

    path = given or public_path(settings.evidence_key)
    return load_public(path) if given or path.exists() else None


def _outside(settings: "Settings", given: Path | None, *, is_export: bool) -> "Outside | None":
    from midwatch_services.logger.evidence import checkpoint_file
    from midwatch_services.logger.evidence.verify import Outside

    path = given or settings.checkpoints_path
    if given and not given.is_file():
        fail(f"there is no file {given}: name one that checkpoints were added to, or leave --checkpoints out", USAGE)
    if not path.is_file() or (is_export and not given):
        return None
    return Outside(str(path), checkpoint_file.as_it_is(path))


def _until(text: str | None) -> str | None:
    from midwatch_services.logger.decide import text_of

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--until {text!r} is no time: write it like 2026-11-22T02:00", USAGE)
    return text_of(time if time.tzinfo else time.astimezone(UTC))


Check = Callable[["Tables", "PublicKeys | None", "Outside | None"], "Report"]


@contextlib.contextmanager
def _log(
    settings: "Settings", export: Path | None, agent: str | None, times: tuple[str | None, str | None]
) -> "Iterator[tuple[Tables, Check]]":
    """The log to check, and what checks it with a bar where somebody looks on."""
    from midwatch_services.logger.evidence import source
    from midwatch_services.logger.evidence.export import opened
    from midwatch_services.logger.evidence.findings import in_order
    from midwatch_services.logger.evidence.verify import verify as check

    if export is not None:
        with opened(export, only=agent) as (log, unread):

            def whole(log: "Tables", keys: "PublicKeys | None", outside: "Outside | None") -> "Report":
                with _bar(log.count()) as step:
                    report = check(log, keys, outside, step)
                for finding in unread:
                    report.add(finding)
                return in_order(report)

            log.within(*times)
            yield log, whole
        return
    with _reading(settings) as conn:
        log = source.Tables(conn, only=agent)
        log.within(*times)

        def plain(log: "Tables", keys: "PublicKeys | None", outside: "Outside | None") -> "Report":
            with _bar(log.count()) as step:
                return check(log, keys, outside, step)

        yield log, plain


@contextlib.contextmanager
def _reading(settings: "Settings") -> "Iterator[Connection]":
    """One state of the logger's database; ends the command where it cannot be read."""
    from sqlalchemy.exc import DatabaseError

    from midwatch.contracts import subjects
    from midwatch.runtime.database import Database
    from midwatch_services.logger.evidence.source import snapshot

    database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    try:
        with database.engine.connect() as conn, conn.begin():
            snapshot(conn)
            yield conn
    except DatabaseError as error:
        why = str(error.orig).strip().splitlines()[0]
        if any(word in why for word in ("malformed", "not a database", "invalid page")):
            fail(f"the database at {database.where} is damaged: {why}")
        if "logger_" in why:
            fail(f"there is no run log in {database.where} yet: start the logger with `midwatch run logger`", USAGE)
        fail(f"the database at {database.where} does not answer: {why}", USAGE)
    finally:
        database.close()


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking events", total=total)
        yield lambda done: progress.advance(task, done)


def _tell(report: "Report", keys: "PublicKeys | None", outside: "Outside | None", as_json: bool) -> None:
    if keys is None and report.checkpoints:
        report.notes.append("No signature was checked, for there is no public key: give one with --key.")
    if outside is None:
        report.notes.append(
            "No checkpoints from outside were read, so that a log cut together with its checkpoints would not show: "
            "give them with --checkpoints."
        )
    if as_json:
        emit_json([{"whole": report.is_whole, **msgspec.to_builtins(report)}])
    else:
        _print(report)
    if not report.is_whole:
        raise typer.Exit(FAILED)
    if keys is None and report.checkpoints:
        raise typer.Exit(USAGE)


def _print(report: "Report") -> None:
    last = f", the last signed {report.newest_checkpoint}" if report.newest_checkpoint else ""
    console.print(
        f"{count_of(report.events, 'event')}, {count_of(report.blocks, 'block')}, "
        f"{count_of(report.checkpoints, 'checkpoint')}{last}.",
        soft_wrap=True,
    )
    lines = (
        (report.unsealed, f"not sealed yet, the oldest stored {report.oldest_unsealed}"),
        (report.unproved, "stored before there was evidence: of those nothing is proved"),
        (report.erased, "erased, each listed in its chain"),
        (report.removed, "removed, as their chains list"),
        (report.elsewhere, "sealed and not in this export, which says that it is a part of the log"),
    )
    for count, what in lines:
        if count:
            console.print(f"{count:,} {what}.", soft_wrap=True)
    for note in report.notes:
        console.print(clean(note), soft_wrap=True)
    if report.is_whole:
        console.print("[green]Whole:[/green] every sealed event is as it was stored.")
        return
    total = sum(report.counts.values())
    counted = ", ".join(f"{count:,} {what}" for what, count in sorted(report.counts.items()))
    console.print(f"[bold red]Not whole:[/bold red] {counted}.", soft_wrap=True)
    for finding in report.findings[:TOLD]:
        console.print(f"  {clean(finding.text)}", soft_wrap=True)
    if total > TOLD:
        console.print(f"  … and {total - min(TOLD, len(report.findings)):,} more: --json names the first of each sort")


def _dossier(path: Path, keys: "PublicKeys | None", as_json: bool) -> None:
    from midwatch_services.logger.evidence import proof

    if keys is None:
        fail("a dossier is checked with a public key: give it with --key", USAGE)
    try:
        read = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        fail(f"{path} is no dossier in JSON: {error}", USAGE)
    _end(proof.check(read, keys), str(path), as_json)


def _run(settings: "Settings", run_id: str, agent: str | None, keys: "PublicKeys | None", as_json: bool) -> None:
    from midwatch_services.logger.evidence import proof, prove

    if keys is None:
        fail("a run is checked up to a signature: give the public key with --key", USAGE)
    with _reading(settings) as conn:
        agents = prove.agents_of(conn, run_id)
        if agent is None and len(agents) > 1:
            fail(f"{', '.join(agents)} each have a run {run_id!r}: say whose with --agent", USAGE)
        name = agent or (agents[0] if agents else "")
        if name not in agents:
            fail(f"no run {run_id!r} in the log: list them with `midwatch runs`", USAGE)
        wrong = proof.check({"proof": prove.prove(conn, name, run_id)}, keys) + prove.disagreeing(conn, name, run_id)
    _end(wrong, f"run {run_id} of {name}", as_json)


def _end(wrong: list[str], what: str, as_json: bool) -> None:
    if as_json:
        emit_json([{"whole": not wrong, "findings": wrong}])
    elif not wrong:
        console.print(f"[green]Whole:[/green] {clean(what)} is as it was stored.", soft_wrap=True)
    else:
        console.print(f"[bold red]Not whole:[/bold red] {clean(what)}", soft_wrap=True)
        for one in wrong[:TOLD]:
            console.print(f"  {clean(one)}", soft_wrap=True)
        if len(wrong) > TOLD:
            console.print(f"  … and {len(wrong) - TOLD:,} more: --json names all")
    if wrong:
        raise typer.Exit(FAILED)
