"""`midwatch topology apply`: streams, consumers and buckets as this release declares them."""

from typing import TYPE_CHECKING, Annotated

import typer

from .output import FAILED, JsonOption, emit_json, emit_table

if TYPE_CHECKING:
    from midwatch.runtime.settings import Settings
    from midwatch.runtime.topology import Change


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    topology = typer.Typer(help="Streams, consumers and buckets on NATS.", no_args_is_help=True)
    topology.callback()(_group)
    topology.command("apply")(apply)
    app.add_typer(topology, name="topology")


def _group() -> None:
    """Streams, consumers and buckets on NATS."""


def apply(
    force: Annotated[bool, typer.Option("--force", help="Also make changes that lose stored messages.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Create what is missing, update what differs, leave the rest alone; as often as you like.

    A change that would lose stored messages is refused, with the reason and exit code 1, unless --force is given.

    Example: NATS_URL=nats://nats:4222 midwatch topology apply
    """
    import asyncio

    from midwatch.runtime.settings import Settings

    changes = asyncio.run(_apply(Settings(), force))
    if as_json:
        emit_json(changes)
    else:
        rows = ({"kind": c.kind, "name": c.name, "action": c.action, "detail": c.detail} for c in changes)
        emit_table(("kind", "name", "action", "detail"), rows, empty="Nothing is declared.")
    if any(change.action == "refused" for change in changes):
        raise typer.Exit(FAILED)


async def _apply(settings: "Settings", force: bool) -> "list[Change]":
    from midwatch.runtime import topology
    from midwatch.runtime.broker import connection

    async with connection(settings.url) as nc:
        return await topology.apply(nc.jetstream(), settings, force=force)
