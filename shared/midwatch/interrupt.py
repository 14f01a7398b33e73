"""Cancelling a task from outside, and taking exactly that cancellation back."""

import asyncio
import contextlib
import sys
from collections.abc import Callable

# Before Python 3.13 a task group that a child's error ends leaves its parent counted as cancelled for ever.
_GROUPS_MISCOUNT = sys.version_info < (3, 13)

# Seconds. Libraries swallow cancellations (before Python 3.12 `asyncio.wait_for` does, when its answer comes at that
# moment): a task that goes on is cancelled again. One that cleans up has so long, or shields itself.
AGAIN = 5.0


class Scope:
    """A stretch of one task that a halt may cancel. Made inside the task; `close` ends the stretch.

    Other cancellations are counted apart, as `asyncio.timeout` does: they always win.
    """

    __slots__ = ("_baseline", "_closed", "_loop", "_may_fire", "_waits", "fired", "task")

    def __init__(self, may_fire: Callable[[], bool]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a run of an agent needs a task: use asyncio.run, or midwatch.blocking in threads")
        self.task = task
        self.fired = 0  # times that the task was cancelled
        self._loop = task.get_loop()
        self._baseline = task.cancelling()
        self._may_fire = may_fire
        self._closed = False
        self._waits = False  # since it was cancelled a moment ago

    def request(self) -> None:
        """Cancels the task at its next step, if it may be cancelled then. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the task
            self._loop.call_soon_threadsafe(self._fire)

    def settle(self) -> None:
        """Called as the program works on: what this task was cancelled for before, and lives through, is over. Not so
        while it unwinds from a cancellation."""
        if not _GROUPS_MISCOUNT or self.fired or not self.cancelled_from_outside:
            return
        with contextlib.suppress(RuntimeError):  # no loop in this thread
            if asyncio.current_task() is self.task and not _came_of_cancellation(sys.exception()):
                self._baseline = self.task.cancelling()

    def outer(self, error: BaseException | None) -> bool:
        """Whether somebody else wants the task to end, as the stretch is left by `error`. Where it only was
        miscounted, that is put right."""
        if error is None or not self.cancelled_from_outside:
            return False
        if not _GROUPS_MISCOUNT or isinstance(error, asyncio.CancelledError):
            return True
        # A group that was cancelled as well keeps no trace of it: there the halt is believed.
        if not isinstance(error, BaseExceptionGroup) and _came_of_cancellation(error):
            return True
        while self.cancelled_from_outside:
            self.task.uncancel()
        return False

    def disarm(self) -> None:
        """From now on the task is not cancelled any more."""
        self._closed = True

    def close(self) -> bool:
        """Ends the stretch. Whether the task is cancelled by this scope and by nobody else."""
        self._closed = True
        if not self.fired:
            return False
        while self.fired > 1:
            self.fired -= 1
            self.task.uncancel()
        self.fired = 0
        return self.task.uncancel() <= self._baseline

    @property
    def cancelled_from_outside(self) -> bool:
        """Whether somebody else asked, within this stretch, that the task be cancelled."""
        return self.task.cancelling() - self.fired > self._baseline

    def _fire(self) -> None:
        # Only from a callback of the loop: the task is suspended then, so the cancellation reaches it at its next
        # step and cannot be left pending after the stretch.
        if self._closed or self._waits or self.task.done():
            return
        if _GROUPS_MISCOUNT and self.cancelled_from_outside:
            return  # or miscounted: the two cannot be told apart here, so the halt waits for the task's next call
        if self._may_fire():
            self.fired += 1
            self._waits = True
            self._loop.call_later(AGAIN, self._fire_again)
            self.task.cancel()

    def _fire_again(self) -> None:
        self._waits = False
        self._fire()


def _came_of_cancellation(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, asyncio.CancelledError):
        error = error.__context__
    return error is not None
