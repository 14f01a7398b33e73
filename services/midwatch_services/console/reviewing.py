"""What a reviewer asks of the desk, and what is read of a form. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, get_args

from midwatch.contracts.reviews import Verdict
from midwatch.contracts.subjects import is_agent_name

from .view import query

SKIPPED = 50  # runs that are named as not wanted now
LONGEST = 8 * 3600.0  # seconds of reading that are believed
NOTE_LIMIT, CORRECTED_LIMIT, REASON_LIMIT = 4_000, 40_000, 100  # characters
_ID_LIMIT = 128


@dataclass(frozen=True, slots=True)
class Wish:
    """Which run somebody wants: of an agent, this one, none of those that were skipped. `only`: of which agent the next
    is to be, after one that was chosen."""

    agent: str | None = None
    run: str | None = None
    skip: tuple[str, ...] = ()
    only: str | None = None

    @property
    def after(self) -> str | None:
        """Of which agent the next is to be, if of one."""
        return self.only if self.run else self.agent

    def of(self, agent: str | None, run: str | None) -> str:
        """Where this run is, with all that is wanted after it."""
        only = self.after if run else None
        return _address(query(agent=agent, run=run, only=only), self.skip)

    def address(self, *, skip: Sequence[str] = ()) -> str:
        """Where the next run is, with `skip` left for later as well."""
        skipped = [*self.skip, *skip][-SKIPPED:]
        return _address(query(agent=self.after), skipped)


def _address(asked: str, skipped: Sequence[str]) -> str:
    text = "&".join(filter(None, [asked, *(query(skip=one) for one in skipped)]))
    return f"/review?{text}" if text else "/review"


def wish_of(params: Any) -> Wish:
    """What an address asks for; what makes no sense in it is left out."""
    wish, only = _wish(params, "agent", params.get("run")), params.get("only")
    return replace(wish, only=only) if isinstance(only, str) and is_agent_name(only) else wish


def next_of(form: Any) -> Wish:
    """What is wanted after the run that the form is about."""
    return _wish(form, "only", None)


def _wish(params: Any, name: str, run: Any) -> Wish:
    agent = params.get(name)
    skipped = [str(one)[:_ID_LIMIT] for one in params.getlist("skip") if one]
    return Wish(
        agent if isinstance(agent, str) and is_agent_name(agent) else None,
        run[:_ID_LIMIT] if isinstance(run, str) and run else None,
        tuple(dict.fromkeys(skipped))[-SKIPPED:],
    )


@dataclass(frozen=True, slots=True)
class Said:
    """A filled-in form. `verdict` is empty where it is none."""

    verdict: str = ""
    reasons: tuple[str, ...] = ()
    corrected: str = ""
    note: str = ""
    seconds: float | None = None
    makes_case: bool = False


def said_of(form: Any, now: datetime) -> Said:
    """What the reviewer filled in. Reasons are of a fail alone."""
    chosen = str(form.get("verdict", ""))
    makes_case = chosen == "case"
    verdict = "fail" if makes_case else chosen if chosen in get_args(Verdict) else ""
    reasons = [str(one)[:REASON_LIMIT] for one in form.getlist("reason")] if verdict == "fail" else []
    return Said(
        verdict, tuple(dict.fromkeys(reasons)), _text(form, "corrected", CORRECTED_LIMIT),
        _text(form, "note", NOTE_LIMIT), seconds(form, now), makes_case,
    )  # fmt: skip


def seconds(form: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds of reading: those that the page counted while it was in sight, else since it was made."""
    counted = _number(form.get("seconds"))
    if counted is not None:
        return counted
    began = _number(form.get("began"), most=now.timestamp())
    since = None if began is None else now.astimezone(UTC).timestamp() - began
    return None if since is None or since > LONGEST else round(since, 1)


def _number(value: Any, most: float = LONGEST) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return round(found, 1) if 0 <= found <= most else None


def _text(form: Any, name: str, limit: int) -> str:
    return str(form.get(name, "")).replace("\r\n", "\n").strip()[:limit]


@dataclass(frozen=True, slots=True)
class Far:
    """How far one is: the place of this run among those of the day, and minutes that the rest takes."""

    place: int
    total: int
    minutes: int
    is_due: bool


def far(done: int, due: int, seconds_each: float) -> Far:
    """`due`: runs left today, this one among them."""
    minutes = max(1, round(due * seconds_each / 60)) if due else 0
    return Far(done + 1, done + due, minutes, due > 0)
