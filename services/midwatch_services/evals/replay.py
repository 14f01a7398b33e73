"""Replays cases against a target, several at once, and says of each how it went."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from .case import Case
from .outcome import REPLAYED, Attempt, Called, CaseResult, Finding, Outcome
from .targets.base import NotReplayed, Target

KEPT = 2_000  # characters of a tool's result, or of its arguments, that the results keep
SAID = 8_000  # characters of what the agent said at once
RECORDED = "recorded"  # a criterion of every case: the recording sufficed

Judged = tuple[bool | None, str]  # what a judge says, None for no answer, and why
Evaluate = Callable[[Case, Outcome, bool | None, str], list[Finding]]
Gates = Callable[[Case], tuple[bool, str]]
Judge = Callable[[Case, Outcome], Awaitable[Judged]]  # asks the judge of the case


@dataclass(frozen=True, slots=True)
class Judging:
    """How what an agent did is judged."""

    evaluate: Evaluate
    gates: Gates
    judge: Judge | None = None


class _Job(NamedTuple):
    case: Case
    place: int
    attempt: int


async def replay(
    cases: Iterable[Case], target: Target, judging: Judging, *, repeats: int = 1, concurrency: int = 8
) -> AsyncGenerator[CaseResult, None]:
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
        perturbation=case.perturbation, runs=None if case.runs is None else list(case.runs), attempts=attempts,
    )  # fmt: skip


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
            await done.put((job, await _attempt(job, target, judging)))
    except Exception as error:
        await done.put(error)
    await done.put(None)


async def _attempt(job: _Job, target: Target, judging: Judging) -> Attempt:
    case = job.case
    try:
        outcome = await target.replay(case, job.attempt)
    except NotReplayed as error:
        return _without_judgement(Outcome(error=str(error)), REPLAYED)
    if any(call.answered == "missing" and call.error == outcome.error for call in outcome.calls):
        return _without_judgement(outcome, RECORDED)
    if outcome.error is not None and not target.history:
        return _without_judgement(outcome, REPLAYED)
    asked = judging.judge(case, outcome) if judging.judge is not None and case.expect.judge else None
    judged = await asked if asked is not None else (None, "")
    findings = judging.evaluate(case, outcome, *judged)
    return Attempt(passed=all(one.ok for one in findings), findings=findings, outcome=lean(outcome))


def _without_judgement(outcome: Outcome, criterion: str) -> Attempt:
    """What the agent did until then says nothing about the case's criteria."""
    finding = Finding(criterion=criterion, ok=False, said=outcome.error or "")
    return Attempt(passed=False, findings=[finding], outcome=lean(outcome))


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
