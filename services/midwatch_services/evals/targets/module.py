"""The target `module:function`: the user's own code, in processes of its own."""

import asyncio
import time

from midwatch.contracts.envelope import utc_now

from ..calling import BadTarget
from ..case import Case, Missing
from ..outcome import Outcome
from ..wire import Report
from .base import outcome
from .process import Lost, Printed, Process

_ALONE = 2  # processes at a time for cases that are tried again


class ModuleTarget:
    """Replays in one process, all at once. Where that dies or is blocked, nobody can say by which case: each of those
    under way is tried once more in a process of its own, and what dies or is blocked there is the one."""

    history = False

    def __init__(self, target: str, version: str, within: float, missing: Missing | None) -> None:
        self.printed = Printed()
        self._target, self._version, self._within, self._missing = target, version, within, missing
        self._process: Process | None = None
        self._retired: list[Process] = []
        self._starting = asyncio.Lock()
        self._alone = asyncio.Semaphore(_ALONE)

    async def open(self) -> None:
        """Loads the target. Raises BadTarget."""
        await self._shared()

    async def close(self) -> None:
        """Ends every process."""
        for process in (*self._retired, *((self._process,) if self._process else ())):
            await process.close()

    async def replay(self, case: Case, attempt: int) -> Outcome:
        began = time.perf_counter()
        try:
            try:
                report = await self._together(case)
            except Lost:
                report = await self._again(case)
        except (BadTarget, Lost) as error:
            return Outcome(error=str(error), seconds=round(time.perf_counter() - began, 3))
        return outcome(report, utc_now())

    async def _together(self, case: Case) -> Report:
        process = await self._shared()
        report = await process.replay(case, self._version, self._missing)
        if report.stuck:  # its thread, or a task that pays no heed, goes on for who knows how long
            process.retired = True
        return report

    async def _again(self, case: Case) -> Report:
        async with self._alone:
            process = await self._start()
            try:
                return await process.replay(case, self._version, self._missing)
            finally:
                await process.close()

    async def _shared(self) -> Process:
        async with self._starting:
            if self._process is not None and self._process.retired:
                self._retired.append(self._process)
                self._process = None
            for process in [one for one in self._retired if one.idle]:
                self._retired.remove(process)
                await process.close()
            if self._process is None:
                self._process = await self._start()
            return self._process

    async def _start(self) -> Process:
        return await Process.start(self._target, self._within, self.printed)
