"""`midwatch card new|check|show` and `midwatch apply`: the scope cards."""

import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import FAILED, USAGE, JsonOption, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.cards import Loaded
    from midwatch_services.cards.bucket import Applied

Paths = Annotated[list[Path], typer.Argument(help="Card files, or folders of them.", metavar="PATH")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    card = typer.Typer(help="Write, check and show scope cards.", no_args_is_help=True)
    card.command("new")(new)
    card.command("check")(check)
    card.command("show")(show)
    app.add_typer(card, name="card")
    app.command("apply")(apply)


def new(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    owner: Annotated[str | None, typer.Option(help="Who answers for it. Default: you.")] = None,
    path: Annotated[Path | None, typer.Option(help="The file to write. Default: agents/AGENT.yaml.")] = None,
) -> None:
    """Write a commented scope card to begin with.

    Example: midwatch card new refund-desk --owner "Head of Support <lead@example.org>"
    """
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName
    from midwatch_services.cards.show import starter

    if not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)
    target = path or Path("agents") / f"{agent}.yaml"
    if target.is_dir():
        target /= f"{agent}.yaml"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(starter(agent, owner or _user(), str(target)))
    except FileExistsError:
        fail(f"{target} is there already and stays as it is: change it, or name another with --path")
    except OSError as error:
        fail(f"{target} cannot be written: {(error.strerror or str(error)).lower()}")
    typer.echo(f"{target}: written. Say in it what {agent} may do, then: midwatch apply {target}")


def check(paths: Paths, as_json: Annotated[bool, JsonOption] = False) -> None:
    """Check scope cards without a server. Exit code 1 if one is wrong; every mistake is named with its place.

    Example: midwatch card check agents/
    """
    loaded, errors = _load_all(paths)
    if as_json:
        emit_json({"path": str(one.path), "agent": one.card.agent, "hash": one.card.hash, "notes": one.notes}
                  for one in loaded)  # fmt: skip
        emit_json({"error": line} for line in errors)
    else:
        for one in loaded:
            typer.echo(f"{one.path}: ok, {one.card.agent} {one.card.hash[:12]}")
        _tell(loaded, errors)
    if errors:
        raise typer.Exit(FAILED)


def show(
    card: Annotated[
        str, typer.Argument(help="An agent whose card is applied, or a card's file.", metavar="AGENT|PATH")
    ],
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show a scope card with every default filled in.

    Example: midwatch card show refund-desk
    """
    from midwatch_services.cards import CardErrors, meaning, read
    from midwatch_services.cards.show import defaults, lines, scalar, unstated

    if Path(card).suffix in (".yaml", ".yml") or Path(card).is_file():
        try:
            loaded = read(Path(card))
        except CardErrors as error:
            _tell([], error.lines)
            raise typer.Exit(FAILED) from None
        found, origin, by_default = loaded.card, f"from {card}", unstated(loaded.card, loaded.stated)
        _tell([loaded], [])
    else:
        found, revision = _applied_card(card)
        origin = (
            f"applied by {scalar(found.applied_by)} at {found.applied_at or 'an unknown time'}, revision {revision}"
        )
        by_default = defaults(found)
    if as_json:
        applied = {"hash": found.hash, "applied_by": found.applied_by, "applied_at": found.applied_at}
        emit_json([{**meaning(found), **applied, "defaults": by_default}])
        return
    typer.echo(f"# {origin}; hash {scalar(found.hash)[:12]}")
    for line in lines(found, by_default):
        typer.echo(line)


def apply(
    paths: Paths,
    by: Annotated[str | None, typer.Option(help="Who applies it. Default: you, on this machine.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Put scope cards in force; agents and services follow at once. Nothing is written if one card is wrong.

    Example: midwatch apply agents/
    """
    loaded, errors = _load_all(paths)
    if errors:
        _tell(loaded, [*errors, "midwatch: nothing was applied"])
        raise typer.Exit(FAILED)
    _tell(loaded, [])
    for one, done in _put(loaded, by or f"{_user()}@{socket.gethostname()}"):
        if as_json:
            emit_json([{"path": str(one.path), **_as_row(done)}])
        else:
            typer.echo(_in_words(done))


def _load_all(paths: list[Path]) -> tuple[list["Loaded"], list[str]]:
    """Every card that can be read, and every mistake in the others; two cards of one agent are a mistake."""
    from midwatch_services.cards import CardErrors, find, read

    loaded: list[Loaded] = []
    errors: list[str] = []
    try:
        files = find(paths)
    except CardErrors as error:
        return [], error.lines
    for path in files:
        try:
            one = read(path)
        except CardErrors as error:
            errors += error.lines
            continue
        twin = next((other.path for other in loaded if other.card.agent == one.card.agent), None)
        if twin:
            errors.append(f"{path}: {one.card.agent} has a card in {twin} already: keep one of them")
        else:
            loaded.append(one)
    return loaded, errors


def _tell(loaded: list["Loaded"], errors: list[str]) -> None:
    for line in [*(f"note: {note}" for one in loaded for note in one.notes), *errors]:
        typer.echo("".join(char if char.isprintable() else " " for char in line), err=True)


def _put(loaded: list["Loaded"], by: str) -> list[tuple["Loaded", "Applied"]]:
    import asyncio

    from midwatch.contracts.envelope import utc_now
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.cards import bucket

    async def work() -> "list[tuple[Loaded, Applied]]":
        async with bucket.connected(Settings().url) as js:
            return [(one, await bucket.apply(js, one.card, by=by, now=utc_now())) for one in loaded]

    try:
        return asyncio.run(work())
    except MidwatchError as error:
        fail(str(error))


def _applied_card(agent: str) -> tuple[Any, int]:
    import asyncio

    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName, MidwatchError, NoCard
    from midwatch.runtime.settings import Settings
    from midwatch_services.cards import bucket

    async def work() -> bucket.Stored:
        async with bucket.connected(Settings().url) as js:
            return await bucket.stored(js, agent)

    if not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)
    try:
        found = asyncio.run(work())
    except MidwatchError as error:
        fail(str(error))
    if found.card is None:
        fail(str(NoCard(agent=agent)))
    return found.card, found.revision


def _as_row(done: "Applied") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(done)


def _in_words(done: "Applied") -> str:
    text = f"{done.agent}: {done.action}, revision {done.revision}, hash {done.hash[:12]}"
    if done.switch == "running":
        return f"{text}; its switch says running"
    who = f" by {done.switch_by}" if done.switch_by else ""
    why = f" ({done.switch_reason})" if done.switch_reason else ""
    line = f"{text}; its switch is {done.switch}{who}{why} and stays so: midwatch resume {done.agent} --reason ..."
    return "".join(char if char.isprintable() else " " for char in line)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return "unknown"
