"""One process with the agent's code in it, as the replay sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass
from itertools import count

import msgspec

from midwatch.errors import MidwatchError

from .. import wire
from ..calling import BadTarget
from ..case import Case, Missing
from ..wire import Did, Do, Ready, Report

IMPORT = 60.0  # seconds that loading the agent's code may take at least
_FIRST = 200  # characters of what the agent prints


class Lost(MidwatchError):
    """The process ended or was killed in the middle of what it was asked: the message says how."""


@dataclass(slots=True)
class Printed:
    """What the agent's code wrote to standard output."""

    first: str = ""
    size: int = 0

    def add(self, part: bytes) -> None:
        if len(self.first) < _FIRST and "\n" not in self.first.lstrip():
            self.first = (self.first + part.decode("utf-8", "replace"))[: 2 * _FIRST]
        self.size += len(part)

    @property
    def line(self) -> str:
        """The first line of it that says something."""
        return next((one.strip()[:_FIRST] for one in self.first.splitlines() if one.strip()), "")


class Process:
    """Replays several cases at a time. `retired`: it gets no new ones."""

    def __init__(
        self, process: asyncio.subprocess.Process, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        within: float, printed: Printed,
    ) -> None:  # fmt: skip
        self.retired = False
        self._process = process
        self._reader, self._writer = streams
        self._within = within
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Report]] = {}
        self._tasks = [asyncio.create_task(self._keep_output(printed))]

    @classmethod
    async def start(cls, target: str, within: float, printed: Printed) -> "Process":
        """A process that has loaded the target. Raises BadTarget."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "midwatch_services.evals.worker", str(theirs.fileno()), target, str(within),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                env=_environment(), start_new_session=True,
            )  # fmt: skip
        streams = await asyncio.open_connection(sock=ours, limit=wire.LINE_LIMIT)
        made = cls(process, streams, within, printed)
        try:
            ready = await made._news(max(within, IMPORT), "importing it took longer than {:g} s")
        except Lost as lost:
            await made.close()
            raise BadTarget(target=target, why=f"loading it failed: {lost}") from None
        except BaseException:
            await made.close()
            raise
        if isinstance(ready, Ready) and ready.wrong:
            await made.close()
            raise BadTarget(ready.wrong)
        made._tasks.append(asyncio.create_task(made._read()))
        return made

    @property
    def idle(self) -> bool:
        return not self._asked

    async def replay(self, case: Case, version: str, missing: Missing | None) -> Report:
        """One attempt. Raises Lost."""
        number = next(self._numbers)
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._writer.write(wire.line(Do(id=number, case=case, version=version, missing=missing)))
            with contextlib.suppress(ConnectionError):  # who reads says why
                await self._writer.drain()
            return await answer
        finally:
            self._asked.pop(number, None)

    async def close(self) -> None:
        """Kills it, and what it started."""
        self.retired = True
        for task in self._tasks[1:]:
            task.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        self._writer.close()
        await asyncio.wait(self._tasks, timeout=1.0)  # output may be held open by what it started elsewhere
        for task in self._tasks:
            task.cancel()

    async def _read(self) -> None:
        late = "the agent blocked its process for more than {:g} s and was killed"
        lost = Lost("the replay ended")
        try:
            while True:
                news = await self._news(self._within, late)
                if isinstance(news, Did) and (answer := self._asked.get(news.id)) and not answer.done():
                    answer.set_result(news.report)
        except Lost as error:
            lost = error
        finally:
            self.retired = True
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(lost)

    async def _news(self, within: float, late: str) -> "Ready | wire.Beat | Did":
        """What it says next. Raises Lost where it says nothing for so long, or is gone."""
        try:
            async with asyncio.timeout(within + max(1.0, min(5.0, within))):
                body = await self._reader.readline()
            if body:
                news: Ready | wire.Beat | Did = wire.read_news(body)
                return news
        except TimeoutError:
            raise Lost(late.format(within)) from None
        except (ConnectionError, ValueError, msgspec.MsgspecError) as error:
            raise Lost(f"the agent's process said what nobody understands: {error}") from None
        raise Lost(f"the agent's process ended{_ending(await self._process.wait())}")

    async def _keep_output(self, printed: Printed) -> None:
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(1 << 16):
            printed.add(part)


def _ending(code: int) -> str:
    if code >= 0:
        return f" with exit code {code}"
    try:
        return f": it was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f": it was killed by signal {-code}"


def _environment() -> dict[str, str]:
    """Without what leads to a bus."""
    return {
        name: value for name, value in os.environ.items() if name != "NATS_URL" and not name.startswith("MIDWATCH_")
    }
