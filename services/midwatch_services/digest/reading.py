"""The runs most worth reading: one of each kind of ending, extreme and tool, the risky kinds first. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from . import words
from .facts import Alert, Facts, Key, Run, Sentence
from .policy import TOOLS_OF
from .wrong import WHY, stops

_RISKY = ("halted", "failed", "fell_back", "abandoned", None, "handed_off", "resolved")
_OUTCOMES = {
    "resolved": "the agent settled it", "failed": "it failed", "halted": "it was stopped",
    "fell_back": "a stand-in took it", "abandoned": "it broke off", None: "it has no end yet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pick:
    """A run to be read, and why."""

    run: Run
    why: tuple[str, ...]


def sample(runs: Sequence[Run]) -> list[Run]:
    """The runs of which the tools are looked at: all of a small day, a fixed draw of a large one."""
    if len(runs) <= TOOLS_OF:
        return list(runs)
    return sorted(runs, key=_draw)[:TOOLS_OF]


def _draw(run: Run) -> str:
    return sha256(f"{run.agent}\0{run.run_id}".encode("utf-8", "surrogatepass")).hexdigest()


def choose(
    runs: Sequence[Run], alerts: Sequence[Alert], tools: Mapping[Key, Collection[str]], limit: int
) -> list[Pick]:
    """At most `limit` runs, in the order in which they are worth it; the same for the same day."""
    ordered = sorted(runs, key=lambda run: (run.first_at, run.key))
    found: dict[Key, tuple[Run, list[str]]] = {}

    def pick(run: Run | None, why: str) -> None:
        if run is not None and (run.key in found or len(found) < limit):
            found.setdefault(run.key, (run, []))[1].append(why)

    by_key = {run.key: run for run in ordered}
    seen: set[tuple[str, str]] = set()
    for alert in sorted(alerts, key=lambda one: (one.raised_at, one.alert_id)):
        run = by_key.get((alert.agent, alert.run_id or ""))
        is_told = (alert.severity != "info" or stops(alert)) and alert.rule in WHY
        if run is not None and (alert.rule, alert.action) not in seen and run.key not in found and is_told:
            seen.add((alert.rule, alert.action))
            pick(run, _of_alert(alert))
    for resolution in _RISKY:
        some = [run for run in ordered if run.resolution == resolution and run.key not in found]
        pick(_first_of_most(some, lambda run: run.tool_errors), "")
    pick(_extreme(ordered, lambda run: float(run.cost_usd or 0)), "The dearest")
    pick(_extreme(ordered, lambda run: run.seconds or 0), "The slowest")
    pick(_extreme(ordered, lambda run: run.tool_errors), "The one in which tools failed most")
    pick(_extreme(ordered, lambda run: run.messages), "The longest talk")
    pick(_extreme(ordered, lambda run: run.tool_calls), "The one with the most steps")
    _one_of_each(ordered, lambda run: [run.handed_off_to] if run.handed_off_to else [], found, pick, lambda _: "")
    _one_of_each(ordered, lambda run: [run.agent], found, pick, lambda _: "")
    _one_of_each(
        ordered,
        lambda run: sorted(tools.get(run.key, ())),
        found,
        pick,
        lambda tool: f"With the tool {words.tool(tool)}",
    )
    return [Pick(run, tuple(filter(None, dict.fromkeys(why)))) for run, why in found.values()]


def _of_alert(alert: Alert) -> str:
    reason = WHY[alert.rule].removeprefix("because ")
    if alert.action.startswith("would_halt"):
        return f"Would have been stopped, as {reason}"
    return f"{'Stopped' if alert.action.startswith('halted') else 'With a warning'}, as {reason}"


def _first_of_most(runs: Sequence[Run], measure: Callable[[Run], float]) -> Run | None:
    return max(runs, key=measure, default=None)


def _extreme(runs: Sequence[Run], measure: Callable[[Run], float]) -> Run | None:
    """The run with the most of something; none where all have as much."""
    measures = [measure(run) for run in runs]
    return _first_of_most(runs, measure) if measures and min(measures) < max(measures) else None


def _one_of_each(
    runs: Sequence[Run], kinds: Callable[[Run], Sequence[str]], found: Mapping[Key, object],
    pick: Callable[[Run, str], None], why: Callable[[str], str],
) -> None:  # fmt: skip
    """Picks a run of each kind that none of the picked is of."""
    covered = {kind for run in runs if run.key in found for kind in kinds(run)}
    for run in runs:
        for kind in kinds(run):
            if kind not in covered:
                covered |= set(kinds(run))
                pick(run, why(kind))


def tell(facts: Facts, picks: Sequence[Pick], *, alone: bool) -> Iterator[Sentence]:
    """One line a run: why it is here, what the customer wrote, what became of it. `alone`: all are of one agent."""
    for place in picks:
        run = place.run
        asked = words.quote(facts.asked.get(run.key, ""))
        who = "A customer" if alone else f"A customer of {words.name(run.agent)}"
        wrote = f"{who} wrote {asked}" if asked else f"{who} wrote nothing that is on record"
        first, *more = place.why or ("",)
        why = f"{', '.join([first, *(one[0].lower() + one[1:] for one in more)])}. " if first else ""
        yield words.about_runs(f"{why}{wrote}; {outcome(run)}.", [run], quotes=True)


def outcome(run: Run) -> str:
    """What became of a run: `the agent settled it after 2 minutes, for $0.05`."""
    if run.resolution == "handed_off":
        to = run.handed_off_to or ""
        end = f"it went on to {words.name(to[6:])}" if to.startswith("agent:") else "a person was to take it on"
    else:
        end = _OUTCOMES.get(run.resolution, "it ended in a way unknown here")
    took = f" after {words.length(run.seconds)}" if run.seconds is not None and run.seconds > 0 else ""
    return f"{end}{took}{_cost(run)}"


def _cost(run: Run) -> str:
    if run.cost_usd:
        least = "at least " if run.cost_basis == "unpriced" else ""
        return f", for {least}{words.money(run.cost_usd)}"
    return ", at no cost" if run.is_priced else ", at an unknown cost"


def keys(picks: Sequence[Pick]) -> list[Key]:
    """The runs' names."""
    return [place.run.key for place in picks]
