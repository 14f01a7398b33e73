"""`midwatch pager new|check` and `midwatch test-page`: who is told of alerts, and whether that works."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import FAILED, USAGE, JsonOption, clean, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.pager.load import Loaded

PathOption = Annotated[Path | None, typer.Option(help="The file. Default: MIDWATCH_PAGER_FILE, or pager.yaml in home.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    pager = typer.Typer(help="Write and check pager.yaml: who is told of alerts, and how.", no_args_is_help=True)
    pager.command("new")(new)
    pager.command("check")(check)
    app.add_typer(pager, name="pager")
    app.command("test-page")(test_page)


def new(path: PathOption = None) -> None:
    """Write a commented pager.yaml to begin with.

    Example: midwatch pager new
    """
    from midwatch_services.pager.starter import STARTER

    target = path or _default()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        fail(f"{target} is there already and stays as it is: change it, or name another with --path")
    except OSError as error:
        fail(f"{target} cannot be written: {(error.strerror or str(error)).lower()}")
    typer.echo(f"{target}: written. Say in it who is told, then: midwatch pager check, and midwatch test-page")


def check(
    path: PathOption = None,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Do not look for ${NAME} in the environment, as in a CI.")
    ] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check pager.yaml without sending anything. Exit code 1 if it is wrong; every mistake is named with its place.

    Secrets are looked for in this shell's environment: run it where the pager runs, or --without-secrets.

    Example: midwatch pager check --path deploy/pager/pager.example.yaml --without-secrets
    """
    from midwatch.contracts.subjects import FLEET

    loaded = _read(path or _default(), without_secrets=without_secrets, as_json=as_json)
    policy = loaded.policy
    if as_json:
        emit_json(_row(one) for one in policy.channels.values())
    else:
        for one in policy.channels.values():
            shown = f"cannot be used: {one.broken}" if one.broken else one.shown
            typer.echo(_line(f"{one.name:20} {one.kind:13} {shown}"))
        for route in policy.routes:
            chain = ", then ".join(" and ".join(step.contacts) for step in route.steps)
            typer.echo(_line(f"{route.name:20} route         {chain}{' (default)' * (route.name == policy.default)}"))
        for agent, contacts in policy.digests.items():
            whose = "of the shop" if agent == FLEET else f"of {agent}"
            typer.echo(_line(f"{'digest':20} {whose:13} {' and '.join(contacts)}"))
    if loaded.notes:
        for note in () if as_json else loaded.notes:
            typer.echo(_line(note), err=True)
        raise typer.Exit(FAILED)


def test_page(
    contact: Annotated[list[str] | None, typer.Option(help="Only the channels of this contact.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only this channel.")] = None,
    path: PathOption = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Really send a message that is marked as a test through every channel of pager.yaml, one line each.

    Exit code 0 only if every channel took it. It goes out from here, not from the pager: secrets are read from this
    shell's environment. Whether it was read is for the people to say.

    Example: midwatch test-page --contact ann
    """
    loaded = _read(path or _default(), without_secrets=False, as_json=as_json)
    names = _chosen(loaded, contact or [], channel or [])
    found = asyncio.run(_send_all(loaded, names))
    if as_json:
        emit_json(found)
    else:
        for one in found:
            state = "took it" if one["ok"] else f"FAILED: {one['error']}"
            typer.echo(_line(f"{one['channel']:20} {one['kind']:13} {one['shown']:32} {state} ({one['seconds']:g} s)"))
    if not all(one["ok"] for one in found):
        raise typer.Exit(FAILED)


def _chosen(loaded: "Loaded", contacts: list[str], channels: list[str]) -> list[str]:
    policy = loaded.policy
    for name in contacts:
        if name not in policy.contacts:
            fail(f"there is no contact {clean(name)}: those are {', '.join(policy.contacts)}", USAGE)
    for name in channels:
        if name not in policy.channels:
            fail(f"there is no channel {clean(name)}: those are {', '.join(policy.channels)}", USAGE)
    wanted = [*channels, *(one for name in contacts for one in policy.contacts[name])]
    return list(dict.fromkeys(wanted)) or list(policy.channels)


async def _send_all(loaded: "Loaded", names: list[str]) -> list[dict[str, Any]]:
    from time import monotonic

    from midwatch.contracts.envelope import new_id, utc_now
    from midwatch.errors import MidwatchError
    from midwatch_services.pager import channels
    from midwatch_services.pager.messages import Message

    from .bus import user

    policy, now = loaded.policy, utc_now()
    id = new_id()
    message = Message(
        id=id, what="test", group_id=id, alert_id=id, severity="info", agent="_fleet", rule="midwatch_test",
        title=f"A test of the pager by {user()}: nothing is wrong, and there is nothing to do", started_at=now,
    )  # fmt: skip

    async def send(name: str) -> dict[str, Any]:
        channel, began = policy.channels[name], monotonic()
        error = None
        try:
            await channels.send(channel, message, utc_now(), policy.send_within.total_seconds())
        except MidwatchError as failure:
            error = str(failure)
        return {**_row(channel), "ok": error is None, "error": error, "seconds": round(monotonic() - began, 2)}

    return list(await asyncio.gather(*(send(name) for name in names)))


def _row(channel: Any) -> dict[str, Any]:
    return {
        "channel": channel.name, "kind": channel.kind, "shown": channel.shown, "ok": not channel.broken,
        "error": channel.broken or None,
    }  # fmt: skip


def _default() -> Path:
    from midwatch.runtime.settings import Settings

    return Settings().pager_yaml


def _read(path: Path, *, without_secrets: bool, as_json: bool) -> "Loaded":
    from midwatch_services.pager.file import nobody
    from midwatch_services.pager.load import PagerFileErrors, read

    if not path.exists():
        fail(nobody(path))
    try:
        return read(path, None if without_secrets else os.environ)
    except PagerFileErrors as error:
        if as_json:
            emit_json({"error": line} for line in error.lines)
        else:
            for line in error.lines:
                typer.echo(_line(line), err=True)
        raise typer.Exit(FAILED) from None


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
