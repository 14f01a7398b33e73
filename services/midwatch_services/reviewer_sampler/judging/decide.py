"""What becomes of a run when one more person has judged it. Pure.

One judge is enough, unless the hash draws the run for a second or the first says `fail`. Two who agree settle it; two
who differ are followed by a third. Nobody is told what another said before that.
"""

import hmac
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from midwatch.contracts.control import ReviewRule
from midwatch.contracts.reviews import Verdict

from ..decide import Run

State = Literal["waiting", "judged", "disputed", "settled", "erased"]
OPEN: tuple[State, ...] = ("waiting", "judged", "disputed")  # states of runs that want one more judge
BY_HASH, BY_FAIL = 1, 2  # why a second person is asked
OTHER = "other"  # what a reason is called that is not on the agent's list
NOTE_LIMIT = 4_000  # characters of a note
CORRECTED_LIMIT = 40_000  # characters of a corrected answer


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one person said of a run. `reasons`: of a fail. `at`: when, in Unix seconds."""

    by: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    corrected: str = ""
    note: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Agreed:
    """The run is settled: what stands, and by whose word."""

    verdict: Verdict
    by: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    corrected: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Disputed:
    """Two differ: a third is to be asked."""

    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The run after a judgement. `second`: 1 where the hash asked for two judges, 2 where a fail did, 0 where one is
    enough. `counts`: whether the judgement was one that the run wanted."""

    state: State
    second: int
    counts: bool
    decision: Agreed | Disputed | None = None


def draw_second(key: bytes, run: Run) -> float:
    """HMAC-SHA256 of `second NUL agent NUL run_id` under the day's key, as a number from 0 up to 1 (see `..decide`).
    Of a replay `replay NUL` stands before that."""
    text = f"second\0{run.agent}\0{run.run_id}"
    text = text if run.track == "live" else f"{run.track}\0{text}"
    digest = hmac.digest(key, text.encode(), "sha256")
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def wants_second(draw: float, rule: ReviewRule) -> bool:
    """Whether the hash has drawn a run for a second judge."""
    return draw < rule.second_review


def places(state: str, second: int) -> int:
    """How many more people a run wants."""
    if state == "waiting":
        return 2 if second else 1
    return 1 if state in OPEN else 0


def may_count(state: str, second: int, held: int, holds: bool) -> bool:
    """Whether a judgement is one that the run wants: its judge `holds` the run, or there is a place that none of the
    `held` by others takes."""
    wanted = places(state, second)
    return wanted > 0 and (holds or wanted > held)


def fold(state: State, before: Sequence[Opinion], one: Opinion, rule: ReviewRule, second: int) -> Outcome:
    """The run after `one` more opinion that it wants. `before`: those that counted; `second`: as in `Outcome`."""
    if not places(state, second):
        return Outcome(state, second, False)
    opinions = sorted((*before, one), key=lambda opinion: opinion.at)  # they may be read in another order
    if len(opinions) == 1:
        if second or one.verdict == "fail":
            return Outcome("judged", second or BY_FAIL, True)
        return Outcome("settled", 0, True, _agreed(one.verdict, opinions, rule))
    verdict, most = Counter(opinion.verdict for opinion in opinions).most_common(1)[0]
    if most > 1:
        same = [opinion for opinion in opinions if opinion.verdict == verdict]
        return Outcome("settled", second, True, _agreed(verdict, same, rule))
    by = tuple(opinion.by for opinion in opinions)
    if len(opinions) == 2:
        return Outcome("disputed", second, True, Disputed(by))
    return Outcome("settled", second, True, Agreed("unsure", by))


def _agreed(verdict: Verdict, opinions: Sequence[Opinion], rule: ReviewRule) -> Agreed:
    said = {reason for opinion in opinions for reason in opinion.reasons} if verdict == "fail" else set()
    return Agreed(
        verdict, tuple(opinion.by for opinion in opinions), tuple(r for r in _listed(rule) if r in said),
        next((opinion.corrected for opinion in opinions if opinion.corrected), "")[:CORRECTED_LIMIT],
        " / ".join(opinion.note for opinion in opinions if opinion.note)[:NOTE_LIMIT],
    )  # fmt: skip


def named(reasons: Iterable[str], note: str, rule: ReviewRule) -> tuple[tuple[str, ...], str]:
    """The reasons by the agent's list, and the note. A word that is not on it becomes `other`, and stands in the note:
    what a person said is never thrown away."""
    known: list[str] = []
    unknown: list[str] = []
    for reason in dict.fromkeys(reasons):
        (known if reason in _listed(rule) else unknown).append(reason)
    if unknown:
        known = [*known, *([] if OTHER in known else [OTHER])]
        note = f"{', '.join(unknown)}: {note}" if note else ", ".join(unknown)
    return tuple(known), note


def _listed(rule: ReviewRule) -> tuple[str, ...]:
    return rule.reasons if OTHER in rule.reasons else (*rule.reasons, OTHER)
