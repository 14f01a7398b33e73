"""What a run uses in a minute, against what is usual for its agent.

The pace of a run is a sum in which each call counts less the longer it is ago, by e to the minus minutes: a burst in a
long run shows, and a short run's pace is no more than its sum. What is usual is learnt from the fastest pace of each
finished run, as an exponentially weighted moving average (S. W. Roberts, Technometrics 1, 1959) of its logarithm, so
that one run ten times as fast weighs no more than one ten times as slow. Dollars and tokens are judged each by itself:
a run without prices by its tokens.
"""

from decimal import Decimal
from math import exp, log
from typing import NamedTuple

from msgspec.structs import replace

from midwatch.contracts.control import VelocityRule
from midwatch.contracts.money import to_money

from .. import say
from ..alerts import Book, Cause
from . import words
from .memory import Facts, LoopState, Most, Pace, Usual
from .repeats import condition, end, end_other, meet

MINUTE = 60.0  # seconds
RUNS = 20  # finished runs that there must be before anything is judged
WEIGHT = 1 / 20  # of a finished run, once there are so many; until then all weigh the same
TEACHES = 10.0  # times the usual as which a run counts at most, so that one runaway is not usual from then on
_ENDS = 0.5  # share of the limit below which a run is slow again


def follow(loops: LoopState, facts: Facts, seq: int) -> LoopState:
    """The run after something that used dollars or tokens."""
    pace = loops.pace
    if pace.first is None:
        before, now, at, first = 0.0, 1.0, facts.at, seq
    else:
        at, first = max(pace.at, facts.at), pace.first
        before, now = exp((pace.at - at) / MINUTE), exp((facts.at - at) / MINUTE)
    dollars, tokens = pace.dollars * before + facts.dollars * now, pace.tokens * before + facts.tokens * now
    most_dollars, most_tokens = max(pace.most_dollars, dollars), max(pace.most_tokens, tokens)
    return replace(loops, pace=Pace(at, dollars, tokens, most_dollars, most_tokens, first))


class _Reading(NamedTuple):
    """What a run uses in a minute, beside what is usual."""

    used: float
    usual: float
    dollars: bool

    @property
    def times(self) -> float:
        return self.used / self.usual


def judge(book: Book, rule: VelocityRule, loops: LoopState, usual: Usual, cause: Cause) -> None:
    """Judges the pace of a run at one of its events."""
    worst = _worst(loops.pace, usual)
    if worst is None or worst.times < rule.times * _ENDS:
        end(book, words.VELOCITY, "the run is slower again")
    elif worst.times >= rule.times:
        sentence = words.fast(book.owner, _said(worst.used, worst), worst.times, _said(worst.usual, worst))
        value, limit = _figure(worst.used, worst), _figure(worst.usual * rule.times, worst)
        met = condition(words.VELOCITY, rule, sentence, value, limit, Most(first=loops.pace.first))
        meet(book, met, cause, again=True)


def judge_anew(book: Book, rule: VelocityRule, loops: LoopState, usual: Usual) -> None:
    """Ends what the card allows now. What would be too fast by it is judged at the next event: time has passed."""
    end_other(book, words.VELOCITY, rule)
    worst = _worst(loops.pace, usual)
    if worst is None or worst.times < rule.times:
        end(book, words.VELOCITY, f"the limit is now {rule.times:g} times what is usual")


def learnt(usual: Usual, pace: Pace) -> Usual:
    """What is usual, with one finished run more."""
    dollars, dollar_runs = _averaged(usual.dollars, usual.dollar_runs, pace.most_dollars)
    tokens, token_runs = _averaged(usual.tokens, usual.token_runs, pace.most_tokens)
    return Usual(dollars, dollar_runs, tokens, token_runs)


def _averaged(mean: float, runs: int, value: float) -> tuple[float, int]:
    if value <= 0:
        return mean, runs
    if not runs:
        return log(value), 1
    runs += 1
    return mean + max(1 / runs, WEIGHT) * (min(log(value), mean + log(TEACHES)) - mean), runs


def _worst(pace: Pace, usual: Usual) -> _Reading | None:
    dollars = _Reading(pace.dollars, exp(usual.dollars), True) if usual.dollar_runs >= RUNS else None
    if usual.token_runs < RUNS:
        return dollars
    tokens = _Reading(pace.tokens, exp(usual.tokens), False)
    return tokens if dollars is None or tokens.times > dollars.times else dollars


def _said(amount: float, reading: _Reading) -> str:
    return say.dollars(Decimal(repr(amount))) if reading.dollars else f"{amount:,.0f} tokens"


def _figure(amount: float, reading: _Reading) -> str | int:
    return to_money(Decimal(f"{amount:.8f}")) if reading.dollars else round(amount)
