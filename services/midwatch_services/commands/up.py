"""`midwatch up`: all of Midwatch on this machine. `midwatch run SERVICE`: one service, for a container."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from midwatch.errors import MidwatchError

from .output import clean, console

if TYPE_CHECKING:
    from midwatch.runtime.nats_server import NatsServer
    from midwatch.runtime.service import Service
    from midwatch.runtime.settings import Settings

RESTART_DELAYS = (0.2, 1, 5, 15)  # seconds before a nats-server that died is started again; then the last, for ever


_ONCE = "That address signs one person in, once, within 15 minutes; for another type: midwatch console link"


class AlreadyUp(MidwatchError):
    """Midwatch is up already in {home}{who}: use it, {stop}, or give this one a folder of its own with
    MIDWATCH_HOME."""


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("up")(up)
    app.command("run")(run)


def up(
    nats_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the embedded server; 0 picks a free one. [default: 4222]"),
    ] = None,
    no_nats: Annotated[
        bool, typer.Option("--no-nats", help="Start no server: use the one at NATS_URL, or on the default port.")
    ] = False,
) -> None:
    """Run everything on this machine: NATS, every service, SQLite. Ctrl-C ends it in order.

    NATS is the server at NATS_URL if that is set, else an embedded one. State is kept in MIDWATCH_HOME (.midwatch), and
    the addresses are written to run.json there, where the other commands find them.

    Example: midwatch up --nats-port 0
    """
    from midwatch.runtime.service import run_until_signal
    from midwatch.runtime.settings import Settings
    from midwatch.runtime.telemetry import set_up_logs
    from midwatch_services.logger.keeping.policy import check

    settings = Settings()
    check(settings)
    if nats_port is not None:
        settings = settings.model_copy(update={"nats_port": nats_port})
    set_up_logs(settings)
    run_until_signal(lambda: _up(settings, embedded=not (no_nats or settings.nats_url)))


def run(
    service: Annotated[
        str,
        typer.Argument(help="logger, cost-watchdog, reviewer-sampler, kill-switch, pager, drift, digest or console."),
    ],
) -> None:
    """Run one service: what a container starts.

    It waits for NATS, for its database and for `midwatch topology apply`, says on /readyz what it waits for, and brings
    its own tables up to date. If it dies, the exit code is not 0.

    Example: NATS_URL=nats://nats:4222 midwatch run logger
    """
    from midwatch.runtime.service import run_services, run_until_signal
    from midwatch.runtime.settings import Settings
    from midwatch.runtime.telemetry import set_up_logs
    from midwatch_services.registry import load

    settings, loaded = Settings(), load(service)
    set_up_logs(settings)
    run_until_signal(lambda: run_services([loaded], settings, started=lambda _: _tell_console(settings), restart=False))


async def _up(settings: "Settings", *, embedded: bool) -> None:
    from midwatch.runtime.nats_server import start_nats
    from midwatch_services import registry

    services = [registry.load(name) for name in registry.NAMES]
    with _alone(settings.home) as run_file:
        if not embedded:
            await _serve(services, settings.model_copy(update={"nats_url": settings.url}), None, run_file)
            return
        folder = settings.home / "nats"
        async with await start_nats(folder, port=settings.nats_port, sync_interval=settings.sync_interval) as server:
            await _serve(services, settings.model_copy(update={"nats_url": server.url}), server, run_file)


async def _serve(
    services: "Sequence[Service]", settings: "Settings", server: "NatsServer | None", run_file: Path
) -> None:
    import asyncio

    from midwatch.runtime import topology
    from midwatch.runtime.broker import connection
    from midwatch.runtime.service import run_services

    async with connection(settings.url) as nc:
        for change in await topology.apply(nc.jetstream(), settings):
            if change.action == "refused":
                typer.echo(f"midwatch: {change.kind} {change.name} was left as it is: {change.detail}", err=True)

    def listening(urls: Mapping[str, str]) -> None:
        _write(run_file, {"nats_url": settings.url, "pid": os.getpid(), "http": dict(urls)})

    def started(urls: Mapping[str, str]) -> None:
        _tell(settings, server, urls)

    revive = asyncio.create_task(_revive(server)) if server else None
    try:
        await run_services(services, settings, listening=listening, started=started)
    finally:
        if revive:
            revive.cancel()
            await asyncio.gather(revive, return_exceptions=True)


async def _revive(server: "NatsServer") -> None:
    """Starts the embedded server again, on its port and with its store, whenever it ends by itself."""
    import asyncio

    import structlog

    log = structlog.get_logger("midwatch.up")
    attempt = 0
    while True:
        began = asyncio.get_running_loop().time()
        code = await server.wait()
        attempt = 0 if asyncio.get_running_loop().time() - began > 60 else attempt
        delay = RESTART_DELAYS[min(attempt, len(RESTART_DELAYS) - 1)]
        log.error("nats_server_ended", exit_code=code, again_in_seconds=delay, its_log=str(server.log))
        await asyncio.sleep(delay)
        attempt += 1
        try:
            await server.restart()
        except MidwatchError as error:
            log.error("nats_server_not_started", error=str(error))


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[Path]:
    """The run file of `home`, for the one process that may write it. Raises AlreadyUp."""
    from midwatch.runtime.lock_file import LockFile

    home.mkdir(parents=True, exist_ok=True)
    run_file = home / "run.json"
    lock = LockFile(home / "up.lock")
    if holder := lock.take():
        raise AlreadyUp(home=home, who=holder.who(), stop=holder.stop())
    try:
        run_file.unlink(missing_ok=True)  # an earlier one was killed
        yield run_file
    finally:
        run_file.unlink(missing_ok=True)
        lock.leave()


def _write(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)  # the address may hold a password
    partial.write_bytes(msgspec.json.encode(content))
    partial.replace(path)


def _console(settings: "Settings") -> list[str]:
    """The address of the console that this process runs: one that signs in, where links do."""
    from midwatch.contracts.envelope import utc_now
    from midwatch_services.console.access import link

    from .bus import user

    running = link.read(settings.home)
    if running is None or running.pid != os.getpid():
        return []
    return [running.url if running.issuer else link.make(settings, utc_now, by=user())]


def _tell_console(settings: "Settings") -> None:
    for address in _console(settings):
        typer.echo(f"The console is at {address}")
        if "/enter?" in address:
            typer.echo(_ONCE)


def _tell(settings: "Settings", server: "NatsServer | None", urls: Mapping[str, str]) -> None:
    from midwatch.runtime.broker import without_credentials

    where = f"nats-server {server.pid}, its state in {server.folder}" if server else "not started by this command"
    database = "PostgreSQL" if settings.database_url else f"SQLite in {settings.home / 'data'}"
    rows = [("NATS", f"{without_credentials(settings.url)} ({where})"), ("database", database)]
    rows += [(name, f"{url}/readyz") for name, url in urls.items()]
    pages = _console(settings)
    rows += [("pages for people", page) for page in pages]
    lines = [f"  {name:18}{clean(text)}" for name, text in rows]
    console.print("\n".join(["", "[bold]Midwatch is up.[/bold]", "", *lines, ""]), soft_wrap=True)
    if any("/enter?" in page for page in pages):
        console.print(f"{_ONCE}\n", soft_wrap=True)
    console.print(
        "In another terminal, apply your scope cards with [bold]midwatch apply agents/[/bold], then start your agents. "
        "[bold]midwatch runs[/bold] lists what they did, [bold]midwatch doctor[/bold] says if all is well, "
        "[bold]midwatch halt AGENT --reason …[/bold] stops one. Ctrl-C here, or elsewhere "
        f"[bold]kill {os.getpid()}[/bold], ends everything.\n"
    )
