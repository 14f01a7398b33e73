"""What is known of one day: the runs that began on it, the week before, what waits, and what it may cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from midwatch.contracts.runs import CostBasis

Key = tuple[str, str]  # agent and run id


@dataclass(frozen=True, slots=True)
class Source:
    """Where a sentence can be checked. `name`: the run's id, the alert's, the case's, or the day."""

    kind: Literal["run", "alert", "case", "day"]
    agent: str
    name: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One plain sentence, and what it speaks of: some of it, and how many it is in all. `quoted`: the runs whose words
    stand in it, or whose case it names."""

    text: str
    sources: tuple[Source, ...]
    total: int
    quoted: tuple[Key, ...] = ()

    @property
    def runs(self) -> set[Key]:
        """The runs that it names or quotes."""
        return {*self.quoted, *((one.agent, one.name) for one in self.sources if one.kind == "run")}


@dataclass(frozen=True, slots=True)
class Change:
    """A finding about what changed, worded by whoever found it, with runs to look at."""

    sentence: str
    runs: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the log has it. `seconds`: from its first event to its end; None without one. `cost_usd` is the known
    part where the basis is `unpriced`, None where nothing is known."""

    agent: str
    run_id: str
    first_at: str
    resolution: str | None = None
    error: str | None = None
    seconds: float | None = None
    cost_usd: Decimal | None = None
    cost_basis: CostBasis | None = None
    unpriced_calls: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    messages: int = 0
    handed_off_to: str | None = None
    halted_by: str | None = None

    @property
    def key(self) -> Key:
        return (self.agent, self.run_id)

    @property
    def is_priced(self) -> bool:
        """Whether all of its cost is known."""
        return self.cost_usd is not None and self.cost_basis != "unpriced"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert and what became of it."""

    alert_id: str
    agent: str
    rule: str
    severity: str
    action: str
    raised_at: datetime
    run_id: str | None = None
    acknowledged_by: str | None = None
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A case that is not closed."""

    case_id: str
    agent: str
    run_id: str
    opened_at: datetime
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Cases:
    """How many cases nobody has, and how many somebody has, with the few of either that were opened first. `holders`:
    everybody who has one."""

    waiting: int = 0
    first: tuple[Case, ...] = ()
    held: int = 0
    first_held: tuple[Case, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reviews:
    """How many runs wait for a reviewer, and the newest few of them."""

    waiting: int = 0
    newest: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures of the runs that began on one day. `cost_usd` is that of the `priced` runs alone."""

    runs: int = 0
    resolutions: Mapping[str, int] = field(default_factory=dict)
    priced: int = 0
    cost_usd: Decimal = Decimal(0)

    def plus(self, other: "Totals") -> "Totals":
        """Both together."""
        names = [*self.resolutions, *(name for name in other.resolutions if name not in self.resolutions)]
        both = {name: self.resolutions.get(name, 0) + other.resolutions.get(name, 0) for name in names}
        return Totals(self.runs + other.runs, both, self.priced + other.priced, self.cost_usd + other.cost_usd)


@dataclass(frozen=True, slots=True)
class Past:
    """The seven days before, oldest first: the first is the same day of the week before. `seconds`: what half of the
    runs that ended took at most; None where none did."""

    days: tuple[Totals, ...] = ()
    seconds: float | None = None

    @property
    def whole(self) -> Totals:
        """All of them together."""
        found = Totals()
        for one in self.days:
            found = found.plus(one)
        return found


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a digest is written from. `agent` is None for the shop. `cases` and `reviews` are None where they could
    not be read; `unended`: runs handed over or begun lately without an end."""

    agent: str | None
    day: date
    zone: str
    now: datetime
    mode: str = "live"
    runs: tuple[Run, ...] = ()
    past: Past = Past()
    alerts: tuple[Alert, ...] = ()
    open_alerts: tuple[Alert, ...] = ()
    cases: Cases | None = Cases()
    reviews: Reviews | None = Reviews()
    unended: tuple[Run, ...] = ()
    changes: tuple[Change, ...] = ()
    is_behind: bool = False  # the log has not all of the day yet
    budget_usd: Decimal | None = None  # of a day, for the agent or the shop
    tools: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    asked: Mapping[Key, str] = field(default_factory=dict)  # what the customer wrote first, of the runs to be read
