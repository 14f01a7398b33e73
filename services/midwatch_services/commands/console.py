"""`midwatch console`: a new one-time address of the console on this machine, and signing everybody out of it."""

from typing import Annotated

import typer

from .output import JsonOption, emit_json, fail

_ROLES = "viewer, reviewer, operator or admin"


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    console = typer.Typer(no_args_is_help=True, help="The console: the pages for people.")

    console.command("link")(link)
    console.command("sign-everybody-out")(sign_everybody_out)
    app.add_typer(console, name="console")


def link(
    role: Annotated[str, typer.Option(help=f"What it lets one do: {_ROLES}.")] = "admin",
    by: Annotated[str | None, typer.Option(help="Who it is for. Default: you, on this machine.")] = None,
) -> None:
    """Print an address that signs one person in to the console, once, within 15 minutes.

    It is for a console on this machine; where an issuer signs people in, there are no such links.

    Example: midwatch console link --role operator --by ann
    """
    from midwatch.contracts.envelope import utc_now
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.console.access import link as links
    from midwatch_services.console.access.roles import Role

    from .bus import user
    from .output import USAGE

    if role not in tuple(Role):
        fail(f"--role {role!r} is none of {_ROLES}", USAGE)
    try:
        typer.echo(links.make(Settings(), utc_now, by=by or user(), role=Role(role)))
    except MidwatchError as error:
        fail(str(error))


def sign_everybody_out(as_json: Annotated[bool, JsonOption] = False) -> None:
    """End every session of the console at once, also of one that runs: its key is replaced.

    Example: midwatch console sign-everybody-out
    """
    from midwatch.errors import MidwatchError
    from midwatch.runtime.settings import Settings
    from midwatch_services.console.access import key

    try:
        path = key.replace(Settings())
    except MidwatchError as error:
        fail(str(error))
    if as_json:
        emit_json([{"signed_out": True, "key": str(path)}])
    else:
        typer.echo("Everybody is signed out of the console. People sign in anew, you with `midwatch console link`.")
