"""`midwatch up` as a process of its own, in a state folder of its own, on free ports."""

import asyncio
import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from midwatch import locate
from midwatch.errors import MidwatchError

UP_WITHIN = 30.0  # seconds
DOWN_WITHIN = 15.0  # seconds
_LOOK_EVERY = 0.05  # seconds


class NotUp(MidwatchError):
    """Midwatch did not come up: {why}."""


@contextlib.asynccontextmanager
async def running(home: Path, database_url: str | None) -> AsyncIterator[str]:
    """Address of NATS, once every service is ready; at the end the process is gone. `home` exists. Raises NotUp."""
    log = home / "up.log"
    # A session of its own: Ctrl-C reaches us alone, and we end it after the agent has signed off.
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "midwatch_services.cli", "up", env=_environment(home, database_url),
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield await _ready(process, home, log)
    finally:
        await _end(process)


def _environment(home: Path, database_url: str | None) -> dict[str, str]:
    # Nothing of a Midwatch that may already be set up here.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MIDWATCH_") and name != "NATS_URL"
    }
    own = {
        "MIDWATCH_HOME": str(home),
        "MIDWATCH_NATS_PORT": "0",
        "MIDWATCH_HTTP_PORT": "0",
        "MIDWATCH_CONSOLE_PORT": "0",
    }
    return kept | own | ({"MIDWATCH_DATABASE_URL": database_url} if database_url else {})


async def _ready(process: asyncio.subprocess.Process, home: Path, log: Path) -> str:
    waiting: set[str] = {"its addresses"}
    try:
        async with asyncio.timeout(UP_WITHIN):
            while waiting:
                if process.returncode is not None:
                    raise _not_up(f"it ended with exit code {process.returncode}", log)
                if probes := locate.run_file(home).get("http"):
                    waiting = {name for name, url in probes.items() if not await asyncio.to_thread(_answers, url)}
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise _not_up(f"after {UP_WITHIN:g} s it still waits for {', '.join(sorted(waiting))}", log) from None
    return str(locate.run_file(home)["nats_url"])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310, an address of ours
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _not_up(why: str, log: Path) -> NotUp:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    return NotUp(why="\n".join([f"{why}. The end of its log ({log})", *lines]))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(DOWN_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
