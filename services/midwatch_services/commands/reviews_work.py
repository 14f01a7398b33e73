"""`midwatch reviews work`: one run after the other, by single keys."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import typer

from . import reviews_judge
from .bus import user
from .keys import Keys
from .output import NOT_CONFIRMED, OK, clean, console, count_of
from .reviews_judge import By, OfAgent, at_desk

if TYPE_CHECKING:
    from midwatch.contracts.claims import Taken
    from midwatch.contracts.reviews import Verdict
    from midwatch_services.reviewer_sampler.judging.desk import Desk

_HELP = "p pass · f fail · u cannot say · c correct the answer · n note · e fail, and an eval case · s skip · q quit"
_VERDICTS: dict[str, "Verdict"] = {"p": "pass", "f": "fail", "u": "unsure", "e": "fail"}
_EXTENSIONS = 12  # of one claim: who has gone home holds nothing for ever
_LEAST = 0.05  # seconds between two of them
_AGAIN = 10.0  # the same once its time is over and nobody has answered
_LOOK = 1.0  # seconds between two looks at the clocks
_SKIP = 50  # runs that are named as not wanted
_MOST_REASONS = 9  # that have a key


def register(reviews: typer.Typer) -> None:
    """Adds the command to the group."""
    reviews.command("work")(work)


def work(agent: OfAgent = None, by: By = None) -> None:
    """Judge one run after the other: p pass, f fail (then the numbers of its reasons), u cannot say, c what the agent
    should have answered, n a note, e fail and make an eval case of it, s skip, q quit.

    A run is held for you while you read it and given back when you leave. Without a terminal each key is a line:
    `f 13` is a fail for reasons 1 and 3. Exit code 3: nothing waits for you.

    Example: midwatch reviews work --agent refund-desk
    """
    who = by or user()
    with suppress(KeyboardInterrupt):
        at_desk(who, lambda desk: Session(desk, agent).run(), "No run was judged.")


class Session:
    """One person at work. `judged` and `skipped` are run ids that are not to be given again."""

    def __init__(self, desk: "Desk", agent: str | None) -> None:
        self._desk, self._agent, self._keys = desk, agent, Keys()
        self._judged: list[str] = []
        self._skipped: list[str] = []

    async def run(self) -> int:
        """Until nothing waits, the person quits, or the input ends."""
        _end_on_hangup()
        while True:
            held, told = await reviews_judge.take_ended(
                self._desk, self._agent, [*self._judged[-_SKIP:], *self._skipped[-_SKIP:]]
            )
            if not held.run_id:
                console.print(clean(held.reason), soft_wrap=True)
                break
            reviews_judge.introduce(held, self._desk.by)
            for line in told.lines or [f"Run {clean(held.run_id)} of {clean(held.agent)}"]:
                console.print(line, soft_wrap=True)
            async with self._holding(held):
                if not await self._read(held):
                    break
        skipped = f", {len(self._skipped)} skipped" if self._skipped else ""
        console.print(f"{count_of(len(self._judged), 'run')} judged{skipped}.")
        return OK if self._judged or self._skipped or held.run_id else NOT_CONFIRMED

    async def _read(self, held: "Taken") -> bool:
        """What the person does with one run. False where he or she leaves."""
        began, corrected, note = time.monotonic(), "", ""
        while True:
            console.print(_HELP, style="bold", soft_wrap=True)
            key, more = await self._command()
            if key == "c":
                corrected = more or await self._ask("What should it have answered?")
            elif key == "n":
                note = more or await self._ask("Note:")
            elif key == "s":
                self._skipped.append(held.run_id)
                return True
            elif key == "q" or (not key and self._keys.over):
                return False
            elif key in _VERDICTS:
                reasons = await self._reasons(held, more) if _VERDICTS[key] == "fail" else []
                data = reviews_judge.said(
                    held, held.run_id, held.agent, _VERDICTS[key], self._desk.by, reasons=reasons,
                    corrected=corrected, note=note, seconds=round(time.monotonic() - began, 1),
                )  # fmt: skip
                await self._desk.judge(data)
                self._judged.append(held.run_id)
                console.print(f"{clean(held.run_id)}: {data.verdict}\n", soft_wrap=True)
                if key == "e":
                    _make_case(held, corrected, self._desk.by)
                return True

    async def _command(self) -> tuple[str, str]:
        """A key, and what stands behind it on a line."""
        line = await self._keys.key()
        return line[:1].lower().strip(), line[1:].strip()

    async def _ask(self, question: str) -> str:
        console.print(question)
        return await self._keys.line()

    async def _reasons(self, held: "Taken", more: str) -> list[str]:
        """The reasons whose numbers were pressed; Enter ends them."""
        listed = held.reasons[:_MOST_REASONS]
        if not more:
            names = "  ".join(f"{place} {reason.replace('_', ' ')}" for place, reason in enumerate(listed, 1))
            console.print(f"Why? {clean(names)}  Enter: no more", soft_wrap=True)
            while (key := await self._keys.key()) not in ("", "\n", "\r"):
                more += key
                if not self._keys.terminal:
                    break
        numbers = dict.fromkeys(int(char) for char in more if char.isascii() and char.isdigit())
        return [listed[number - 1] for number in numbers if 0 < number <= len(listed)]

    @asynccontextmanager
    async def _holding(self, held: "Taken") -> AsyncIterator[None]:
        """Holds the run while it is read; gives it back where it was not judged."""
        extending = asyncio.create_task(self._extend(held))
        try:
            yield
        finally:
            extending.cancel()
            if held.run_id not in self._judged:
                from midwatch.errors import MidwatchError

                with suppress(MidwatchError):  # its time runs out by itself
                    await asyncio.shield(self._desk.release(held))

    async def _extend(self, held: "Taken") -> None:
        from midwatch.errors import MidwatchError
        from midwatch_services.reviewer_sampler.judging.desk import left

        since, rest, extended = _mark(), left(held), 0
        while extended < _EXTENSIONS:
            half = max(_LEAST, rest / 2) if rest else _AGAIN
            await _until(since, half)
            try:
                longer = await self._desk.extend(held)
            except MidwatchError:  # asked again at half of what is left, and now and then once nothing is
                since, rest = _mark(), max(0.0, rest - _passed(since))
                continue
            if not longer.run_id:
                console.print(f"{clean(held.run_id)} is not held for you any more: {clean(longer.reason)}")
                return
            since, rest, extended = _mark(), left(longer), extended + 1


def _mark() -> tuple[float, float]:
    return time.monotonic(), time.time()


def _passed(since: tuple[float, float]) -> float:
    """Seconds by the clock that says more: one stands still while the machine sleeps, the other may be set back."""
    return max(now - then for now, then in zip(_mark(), since, strict=True))


async def _until(since: tuple[float, float], seconds: float) -> None:
    while (rest := seconds - _passed(since)) > 0:  # noqa: ASYNC110, no clock tells that the machine has slept
        await asyncio.sleep(min(_LOOK, rest))


def _make_case(held: "Taken", corrected: str, by: str) -> None:
    from midwatch.errors import MidwatchError
    from midwatch_services.evals import make

    try:
        path = make.of_run(held.run_id, agent=held.agent, corrected=corrected, by=by, failed=True).save()
    except MidwatchError as error:
        console.print(f"The verdict is kept; no eval case was made: {clean(error)}", soft_wrap=True)
        return
    console.print(f"Eval case: {clean(path)}\n", soft_wrap=True)


def _end_on_hangup() -> None:
    """A terminal that is closed gives the run back as Ctrl-C does."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGHUP"):
        if task is not None and hasattr(signal, name):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(getattr(signal, name), task.cancel)
