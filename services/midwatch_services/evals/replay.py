"""Replays cases against a target, several at once, and says of each how it went."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from midwatch.runtime.http_post import in_a_thread

from .case import Case
from .outcome import Attempt, Called, CaseResult, Finding, Outcome
from .targets.base import Target

KEPT = 2_000  # characters of a tool's result, or of its arguments, that the results keep
SAID = 8_000  # characters of what the agent said at once
ENDED = "ran to its end"

Evaluate = Callable[..., list[Finding]]  # (case, outcome, judged=(passed, why) or None)
Gates = Callable[[Case], tuple[bool, str]]
Judge = Callable[[Case, Outcome], tuple[bool, str]]  # asks the judge of the case


@dataclass(frozen=True, slots=True)
class Judging:
    """How what an agent did is judged. `within`: seconds that a judge function may take."""

    evaluate: Evaluate
    gates: Gates
    judge: Judge | None = None
    within: float = 60.0


class _Job(NamedTuple):
    case: Case
    place: int
    attempt: int


async def replay(
    cases: Iterable[Case], target: Target, judging: Judging, *, repeats: int = 1, concurrency: int = 8
) -> AsyncIterator[CaseResult]:
    """The result of each case as it is known, in whatever order. No more is held than what is under way."""
    jobs = (_Job(case, place, attempt) for place, case in enumerate(cases) for attempt in range(repeats))
    done: asyncio.Queue[tuple[_Job, Attempt] | BaseException | None] = asyncio.Queue(maxsize=2 * concurrency)
    workers = [asyncio.create_task(_work(jobs, target, judging, done)) for _ in range(concurrency)]
    attempts: dict[int, list[tuple[int, Attempt]]] = {}
    left = concurrency
    try:
        while left:
            news = await done.get()
            if news is None:
                left -= 1
            elif isinstance(news, BaseException):
                raise news
            else:
                job, attempt = news
                so_far = attempts.setdefault(job.place, [])
                so_far.append((job.attempt, attempt))
                if len(so_far) == repeats:
                    ordered = [one for _, one in sorted(attempts.pop(job.place), key=lambda pair: pair[0])]
                    yield result_of(job.case, ordered, judging.gates(job.case))
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def result_of(case: Case, attempts: list[Attempt], gates: tuple[bool, str]) -> CaseResult:
    """All attempts at a case together: it passed if more than half of them did."""
    passed = 2 * sum(one.passed for one in attempts) > len(attempts)
    return CaseResult(
        case=case.name, hash=case.hash, passed=passed, gates=gates[0], why_not=gates[1], twin_of=case.twin_of,
        perturbation=case.perturbation, attempts=attempts,
    )  # fmt: skip


def broke(outcome: Outcome) -> bool:
    """Whether the attempt could not be made as it should. A call that the recording does not answer, where that is to
    fail, is the agent's own failure."""
    lacking = any(call.answered == "missing" and call.error == outcome.error for call in outcome.calls)
    return outcome.error is not None and not lacking


def first_failing(result: CaseResult) -> str:
    """What went wrong in a case that did not pass, in one sentence."""
    for attempt in result.attempts:
        for finding in attempt.findings:
            if not finding.ok:
                return finding.said
    return ""


async def _work(
    jobs: Iterator[_Job], target: Target, judging: Judging,
    done: "asyncio.Queue[tuple[_Job, Attempt] | BaseException | None]",
) -> None:  # fmt: skip
    try:
        for job in jobs:
            outcome = await target.replay(job.case, job.attempt)
            await done.put((job, await _judged(job.case, outcome, judging)))
    except Exception as error:
        await done.put(error)
    await done.put(None)


async def _judged(case: Case, outcome: Outcome, judging: Judging) -> Attempt:
    if outcome.error is not None:
        findings = [Finding(criterion=ENDED, ok=False, said=outcome.error)]
        return Attempt(passed=False, findings=findings, outcome=lean(outcome))
    judged = await _asked(case, outcome, judging) if case.expect.judge else None
    findings = judging.evaluate(case, outcome, judged=judged)
    return Attempt(passed=all(one.ok for one in findings), findings=findings, outcome=lean(outcome))


async def _asked(case: Case, outcome: Outcome, judging: Judging) -> tuple[bool, str] | None:
    ask = judging.judge
    if ask is None:
        return None
    try:
        return await in_a_thread(lambda: ask(case, outcome), judging.within, name="judge")
    except TimeoutError:
        return False, f"the judge gave no answer within {judging.within:g} s"
    except Exception as error:
        return False, f"the judge raised {type(error).__name__}: {error}"


def lean(outcome: Outcome) -> Outcome:
    """The outcome as the results keep it: long results, arguments and answers are cut, and say how long they were."""
    said = [one if len(one) <= SAID else f"{one[:SAID]}… ({len(one):,} characters)" for one in outcome.said]
    return replace(outcome, said=said, calls=[_lean(call) for call in outcome.calls])


def _lean(call: Called) -> Called:
    return replace(call, result=_cut(call.result), arguments=_cut(call.arguments))


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else None
    if text is None:
        with suppress(TypeError, ValueError, msgspec.MsgspecError):
            encoded = msgspec.json.encode(value)
            if len(encoded) > KEPT:
                text = encoded.decode()
    return value if text is None or len(text) <= KEPT else f"{text[:KEPT]}… ({len(text):,} characters)"
