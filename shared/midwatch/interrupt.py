"""Cancelling a task from outside, once, and taking exactly that cancellation back."""

import asyncio
import contextlib
import sys
from collections.abc import Callable

# Before Python 3.13 a task group that a child's error ends leaves its parent counted as cancelled for ever.
_GROUPS_MISCOUNT = sys.version_info < (3, 13)


class Scope:
    """A stretch of one task that a halt may cancel. Made inside the task; `close` ends the stretch.

    Other cancellations are counted apart, as `asyncio.timeout` does: they always win.
    """

    __slots__ = ("_baseline", "_closed", "_loop", "_may_fire", "fired", "task")

    def __init__(self, may_fire: Callable[[], bool]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a run of an agent needs a task: use asyncio.run, or midwatch.blocking in threads")
        self.task = task
        self.fired = False
        self._loop = task.get_loop()
        self._baseline = task.cancelling()
        self._may_fire = may_fire
        self._closed = False

    def request(self) -> None:
        """Cancels the task at its next step, if it may be cancelled then. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the task
            self._loop.call_soon_threadsafe(self._fire)

    def settle(self) -> None:
        """Called in the task as it works on: what it was cancelled for before, and lives through, is over. Not so
        while it unwinds from a cancellation."""
        if _GROUPS_MISCOUNT and not self.fired and not _unwinding():
            self._baseline = max(self._baseline, self.task.cancelling())

    def forgive(self, error: BaseException | None) -> None:
        """Takes back what task groups that were ended by `error` miscounted."""
        for _ in range(_groups(error) if _GROUPS_MISCOUNT else 0):
            if self.cancelled_from_outside:
                self.task.uncancel()

    def disarm(self) -> None:
        """From now on the task is not cancelled any more."""
        self._closed = True

    def close(self) -> bool:
        """Ends the stretch. Whether the task is cancelled by this scope and by nobody else."""
        self._closed = True
        if not self.fired:
            return False
        self.fired = False
        return self.task.uncancel() <= self._baseline

    @property
    def cancelled_from_outside(self) -> bool:
        """Whether somebody else asked, within this stretch, that the task be cancelled."""
        return self.task.cancelling() - self.fired > self._baseline

    def _fire(self) -> None:
        # Only from a callback of the loop: the task is suspended then, so the cancellation reaches it at its next
        # step and cannot be left pending after the stretch.
        if not (self._closed or self.fired or self.task.done()) and self._may_fire():
            self.fired = True
            self.task.cancel()


def _unwinding() -> bool:
    error = sys.exception()
    while error is not None and not isinstance(error, asyncio.CancelledError):
        error = error.__context__
    return error is not None


def _groups(error: BaseException | None) -> int:
    if not isinstance(error, BaseExceptionGroup):
        return 0
    return 1 + sum(_groups(inner) for inner in error.exceptions)
