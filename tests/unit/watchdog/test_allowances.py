"""Money that is set aside: what is granted, what is charged, and that nothing is counted twice or forgotten."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.contracts.budget import Reserve
from midwatch.contracts.control import BudgetRule, LimitRule
from midwatch_services.cost_watchdog.allowances import decide
from midwatch_services.cost_watchdog.allowances.decide import Account, Budget, Key, Ledger, Reservation
from midwatch_services.cost_watchdog.state import Subject

NOW = 1_800_000_000.0
LIMIT = Decimal(1)
TICKET = Account("desk", "T-1")


def ask(id: str, ceiling: str = "0.18") -> Reserve:
    return Reserve(id=id, run_id="r", ticket="T-1", ceiling=ceiling)


def budget(spent: str = "0", reserved: str = "0", scope: str = "ticket") -> Budget:
    subject = Subject("live", "desk", "T-1")
    return Budget(scope, subject, TICKET, LIMIT, "", Decimal(spent), Decimal(reserved))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spent", "reserved", "ceiling", "granted"),
    [
        ("0", "0", "0.18", True),
        ("0.54", "0.28", "0.18", True),  # to the cent
        ("0.54", "0.36", "0.18", False),
        ("0.82", "0", "0.18", True),
        ("0.83", "0", "0.18", False),
        ("0", "0", "1.01", False),
        ("0.99", "0", "0", True),  # nobody knows what it costs, and something is left
        ("0.9", "0.1", "0", False),
    ],
)
def test_a_call_is_granted_while_its_ceiling_fits_beside_what_is_spent_and_set_aside(
    spent: str, reserved: str, ceiling: str, granted: bool
) -> None:
    after = decide.reserve(None, ask("a"), Decimal(ceiling), [budget(spent, reserved)], NOW)
    assert after.answer is not None
    assert (after.answer.granted, after.open, after.charge) == (granted, granted, Decimal(ceiling) * granted)


def test_a_refusal_says_which_budget_and_how_it_stands() -> None:
    answer = decide.reserve(None, ask("a"), Decimal("0.18"), [budget("0.72", "0.18")], NOW).answer
    assert answer is not None
    assert (answer.budget, answer.limit, answer.spent, answer.reserved) == ("ticket", "1", "0.72", "0.18")
    assert answer.reason == (
        "Ticket T-1 of desk has spent $0.72 of its $1.00 budget, $0.18 is set aside for other calls: "
        "one more of up to $0.18 could pass it"
    )


def test_the_first_budget_that_could_be_passed_refuses() -> None:
    limits = [budget(), replace(budget("0.9"), scope="hour"), replace(budget("0.9"), scope="day")]
    answer = decide.reserve(None, ask("a"), Decimal("0.18"), limits, NOW).answer
    assert answer is not None
    assert answer.budget == "hour"


def test_the_budgets_of_a_call_are_ticket_hour_day_and_fleet() -> None:
    rule = BudgetRule(ticket="2", hour="10", day="40")
    now = datetime(2026, 11, 26, 13, 59, tzinfo=UTC)
    found = decide.budgets("desk", "T-1", rule, Decimal(100), now)
    assert [(one.scope, str(one.subject), one.account, one.limit) for one in found] == [
        ("ticket", "live/desk/T-1", Account("desk", "T-1"), 2),
        ("hour", "live/_fleet/desk/hour/2026-11-26T13", Account("desk"), 10),
        ("day", "live/_fleet/desk/day/2026-11-26", Account("desk"), 40),
        ("fleet", "live/_fleet/2026-11-26", decide.FLEET, 100),
    ]
    alone = decide.budgets("desk", None, BudgetRule(), None, now)
    assert alone == []  # of no ticket, without limits for hour, day and fleet


def test_a_budget_that_only_alerts_refuses_nothing() -> None:
    rule = BudgetRule(hour="1", day="1", at_limit=LimitRule(ticket="alert", hour="alert", day="alert"))
    assert decide.budgets("desk", "T-1", rule, None, datetime(2026, 11, 26, tzinfo=UTC)) == []


def test_the_same_request_again_gets_the_same_answer_and_renews_what_is_held() -> None:
    first = decide.reserve(None, ask("a"), Decimal("0.18"), [budget()], NOW)
    again = decide.reserve(first, ask("a", "5"), Decimal(5), [budget("1")], NOW + 40)
    assert again == Reservation("held", NOW + 40 + 660, Decimal("0.18"), "T-1", None, first.answer)
    refused = decide.reserve(None, ask("b"), Decimal("0.18"), [budget("1")], NOW)
    assert decide.reserve(refused, ask("b"), Decimal("0.18"), [budget("0")], NOW + 40) == refused


def test_a_committed_cost_takes_the_place_of_the_ceiling_and_the_first_counts() -> None:
    held = decide.reserve(None, ask("a"), Decimal("0.18"), [budget()], NOW)
    committed = decide.commit(held, Decimal("0.07"), NOW + 1)
    assert (committed.phase, committed.charge, committed.ends_at) == ("committed", Decimal("0.07"), NOW + 1 + 86_400)
    assert decide.commit(committed, Decimal("0.01"), NOW + 2) == committed
    assert decide.commit(held, Decimal(0), NOW + 1).open is False  # the call was not made


def test_an_event_ends_a_reservation_and_what_comes_late_sets_nothing_aside() -> None:
    held = decide.reserve(None, ask("a"), Decimal("0.18"), [budget()], NOW)
    over = decide.settle(held, NOW + 1)
    assert (over.phase, over.charge) == ("settled", 0)
    assert decide.commit(over, Decimal("0.07"), NOW + 2) == over
    assert decide.reserve(over, ask("a"), Decimal("0.18"), [budget()], NOW + 2) == over
    for first in (decide.settle(None, NOW), decide.commit(None, Decimal("0.07"), NOW)):
        assert decide.reserve(first, ask("a"), Decimal("0.18"), [budget()], NOW + 1).open is False


def test_the_sums_are_of_a_ticket_an_agent_and_the_fleet() -> None:
    ledger = Ledger()
    for number, (agent, ticket) in enumerate((("desk", "T-1"), ("desk", "T-2"), ("desk", None), ("mail", "T-1"))):
        ledger.put(Key(agent, str(number)), Reservation("held", NOW, Decimal(number + 1), ticket))
    sums = [ledger.reserved(one) for one in (TICKET, Account("desk"), Account("mail", "T-1"), decide.FLEET)]
    assert sums == [1, 6, 4, 10]
    for number, agent in enumerate(("desk", "desk", "desk", "mail")):
        ledger.put(Key(agent, str(number)), None)
    assert [ledger.reserved(one) for one in (TICKET, Account("desk"), decide.FLEET)] == [0, 0, 0]


@dataclass
class Till:
    """One ticket's budget, its ledger, and the table of all that was ever asked."""

    ledger: Ledger = field(default_factory=Ledger)
    table: dict[str, Reservation] = field(default_factory=dict)
    spent: Decimal = Decimal(0)
    now: float = NOW

    def reserve(self, id: str, ceiling: Decimal) -> bool:
        limit = replace(budget(), spent=self.spent, reserved=self.ledger.reserved(TICKET))
        self._put(id, decide.reserve(self.table.get(id), ask(id, str(ceiling)), ceiling, [limit], self.now))
        answer = self.table[id].answer
        return answer is not None and answer.granted

    def commit(self, id: str, cost: Decimal) -> None:
        self._put(id, decide.commit(self.table.get(id), cost, self.now))

    def event(self, id: str, cost: Decimal) -> None:
        self.spent += cost
        self._put(id, decide.settle(self.table.get(id), self.now))

    def expire(self) -> None:
        for key in self.ledger.due(self.now):
            self.ledger.put(key, None)
            del self.table[key.id]

    def _put(self, id: str, reservation: Reservation) -> None:
        self.table[id] = reservation
        self.ledger.put(Key("desk", id), reservation)


CENTS = st.integers(0, 60).map(lambda cents: Decimal(cents) / 100)
# Of each call: its ceiling, its cost as a share of that, and whether it dies without a commit and an event.
CALLS = st.lists(st.tuples(CENTS, st.integers(0, 4), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=400)
@given(calls=CALLS, data=st.data())
def test_in_whatever_order_all_comes_nothing_passes_the_limit_and_the_true_costs_remain(
    calls: list[tuple[Decimal, int, bool]], data: st.DataObject
) -> None:
    """Requests, their repeats, commits and events interleave freely; each event is summed once, as the applied
    identities see to."""
    till = Till()
    costs = {str(n): ceiling * share / 4 for n, (ceiling, share, _) in enumerate(calls)}
    steps = [(kind, str(n)) for n in range(len(calls)) for kind in ("ask", "again", "commit", "twice", "event", "late")]
    granted: dict[str, bool] = {}
    summed: set[str] = set()
    for kind, id in data.draw(st.permutations(steps)):
        ceiling, _, dies = calls[int(id)]
        till.now += 1
        if kind in ("ask", "again", "late") and (kind == "ask" or id in granted):
            answer = till.reserve(id, ceiling)
            assert granted.setdefault(id, answer) == answer  # the same, however often
        elif kind in ("commit", "twice") and granted.get(id) and not dies:
            till.commit(id, costs[id])
        elif kind == "event" and granted.get(id) and not dies:
            till.event(id, costs[id])
            summed.add(id)
        assert till.spent + till.ledger.reserved(TICKET) <= LIMIT
    for id, known in granted.items():
        if known and id not in summed and not calls[int(id)][2]:
            till.event(id, costs[id])
            summed.add(id)
        assert till.spent + till.ledger.reserved(TICKET) <= LIMIT
    till.now += decide.COMMITTED + 1
    till.expire()
    assert till.ledger.open == {}
    assert till.ledger.reserved(TICKET) == 0
    assert till.spent == sum((costs[id] for id in summed), Decimal(0))


@pytest.mark.parametrize(("seconds", "charged"), [(0, "0.18"), (60, "0.18"), (659, "0.18"), (661, "0")])
def test_an_orphan_is_charged_for_ten_minutes_past_its_lease(seconds: float, charged: str) -> None:
    till = Till()
    till.reserve("a", Decimal("0.18"))
    till.now += seconds
    till.expire()
    assert till.ledger.reserved(TICKET) == Decimal(charged)


def test_an_event_that_comes_after_its_orphan_was_dropped_is_summed_all_the_same() -> None:
    till = Till()
    till.reserve("a", Decimal("0.18"))
    till.now += 700
    till.expire()
    till.event("a", Decimal("0.15"))
    assert (till.spent, till.ledger.reserved(TICKET)) == (Decimal("0.15"), 0)
