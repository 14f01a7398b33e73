"""`midwatch console link`: a new one-time address of the console on this machine."""

from typing import Annotated

import typer

from .output import fail

_ROLES = "viewer, reviewer, operator or admin"


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    console = typer.Typer(no_args_is_help=True, help="The console: the pages for people.")

    @console.callback()
    def _group() -> None:
        """A group even while it holds one command."""

    console.command("link")(link)
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
