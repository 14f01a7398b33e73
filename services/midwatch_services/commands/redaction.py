"""`midwatch redaction test|new-key`: what would be replaced before a run is stored, and the key that gets it back."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import FAILED, JsonOption, clean, console, emit_json, fail

if TYPE_CHECKING:
    from midwatch.contracts.control import RedactRule
    from midwatch_services.logger.redaction.redactor import Replaced

_SHOWN = 60  # signs of what was replaced


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    redaction = typer.Typer(help="Try what is redacted before a run is stored; make its key.", no_args_is_help=True)
    redaction.command("test")(test)
    redaction.command("new-key")(new_key)
    app.add_typer(redaction, name="redaction")


def test(
    file: Annotated[
        Path | None,
        typer.Argument(help="A text, or a file of runs as `midwatch replay` reads it. Default: what is piped in."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="The card whose rules to try. Default: the rules without one.")
    ] = None,
    fail_on_match: Annotated[
        bool, typer.Option("--fail-on-match", help="Exit code 1 if anything is replaced.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show what would be replaced in a text or in a file of runs. Nothing is stored, and no server is needed.

    Exit code 0 if all of it was looked at, 1 where a card or file cannot be read.

    Example: echo "Write to dana@example.com" | midwatch redaction test --card agents/refund-desk.yaml
    """
    from midwatch_services.logger.redaction.redactor import Redactor
    from midwatch_services.logger.redaction.rules import compiled

    found: list[Replaced] = []
    rules, agent = _rules(card)
    redactor = Redactor(compiled(rules), agent, on_replaced=found.append)
    counts: Counter[str] = Counter()
    texts = 0
    for where, text in _texts(file):
        texts += 1
        found.clear()
        new = redactor.text(text)
        counts.update(one.name for one in found)
        _print(where, text, new, found, as_json, whole=file is None)
    if as_json:
        emit_json([{"texts": texts, "replaced": dict(sorted(counts.items()))}])
    else:
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "nothing"
        typer.echo(f"replaced: {told}", err=True)
    if fail_on_match and counts:
        raise typer.Exit(FAILED)


def new_key(
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Put a new key before the one there is, which still reads what it hid.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Make the key with which `reversible` rules encrypt, in MIDWATCH_REDACTION_KEY_FILE or the state folder.

    The logger takes it up by itself. Keep a copy apart from the database: without it nothing can be got back. One that
    is there already is never overwritten.

    Example: midwatch redaction new-key
    """
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.redaction import keys

    path = Settings().redaction_key
    try:
        key_id = keys.create(path, rotate=rotate)
    except MidwatchError as error:
        fail(str(error))
    if as_json:
        emit_json([{"path": str(path), "key": key_id}])
    else:
        typer.echo(f"{path}: key {key_id}, readable by you alone; keep a copy apart from the database")


def reveal(agent: str, parts: list[Any]) -> list[Any]:
    """What was read from the log, with all that reversible rules hid; ends the command where there is no key."""
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.logger.redaction import keys

    path = Settings().redaction_key
    try:
        found = keys.read(path)
        if found is None:
            raise keys.NoKey(path=path)
    except MidwatchError as error:
        fail(str(error))
    return [_revealed(found, agent, part) for part in parts]


def _revealed(found: Any, agent: str, value: Any) -> Any:
    if isinstance(value, str):
        return found.reveal(value, agent)
    if isinstance(value, dict):
        return {_revealed(found, agent, key): _revealed(found, agent, part) for key, part in value.items()}
    return [_revealed(found, agent, part) for part in value] if isinstance(value, list) else value


def _rules(card: Path | None) -> "tuple[tuple[RedactRule, ...], str]":
    from midwatch.contracts.control import REDACTED
    from midwatch_services.cards import CardErrors, load

    if card is None:
        return REDACTED, ""
    try:
        loaded = load(card)
    except CardErrors as error:
        for line in error.lines:
            typer.echo(clean(line), err=True)
        fail("the card has mistakes, so none of its rules can be tried")
    return loaded.log.redact, loaded.agent


def _texts(file: Path | None) -> Iterator[tuple[str, str]]:
    """Each text with where it stands."""
    from midwatch.errors import MidwatchError
    from midwatch_services.replay import formats

    if file is None:
        yield "", sys.stdin.buffer.read().decode("utf-8", "replace")
        return
    try:
        for one in formats.read(file):
            if isinstance(one, formats.Bad):
                fail(f"{one.place}: {one.error}")
            yield from _said(one.run)
    except formats.UnknownFormat:
        with contextlib.suppress(OSError):
            yield str(file), file.read_text("utf-8", "replace")
    except MidwatchError as error:
        fail(f"{file}: {error}")


def _said(run: Any) -> Iterator[tuple[str, str]]:
    import msgspec

    for place, message in enumerate(run.messages):
        where = f"{run.run_id}:{place}"
        if isinstance(message.content, str):
            yield where, message.content
        elif message.content is not None:
            yield where, msgspec.json.encode(message.content).decode()
        for call in message.tool_calls or ():
            yield where, msgspec.json.encode(call.args).decode()


def _print(where: str, text: str, new: str, found: "list[Replaced]", as_json: bool, *, whole: bool) -> None:
    if as_json:
        if found or whole:
            each = [{"name": one.name, "text": one.text} for one in found]
            emit_json([{"where": where or None, "redacted": new, "replaced": each}])
        return
    if whole:
        typer.echo(new, nl=not new.endswith("\n"))
    for one in found:
        place = f"{clean(where)}  " if where else ""
        console.print(f"{place}[bold]{clean(one.name)}[/]  {clean(one.text[:_SHOWN])}", soft_wrap=True)
