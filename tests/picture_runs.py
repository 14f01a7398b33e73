"""Four weeks of a shop's runs for the pictures of the console: three agents, and customers who want this and that."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from midwatch.runtime.delivery import Received
from reading_helpers import Steps, run

REFUNDS, ORDERS, INVOICES = "refund-desk", "order-desk", "invoice-helper"
DAYS = 28


@dataclass(frozen=True)
class Wish:
    """What a customer wants, what is looked up and changed for it, and what the agent answers."""

    asks: str
    finds: tuple[str, dict[str, Any]]
    writes: tuple[str, dict[str, Any], dict[str, Any], str] | None
    answer: str


WISHES = {
    REFUNDS: (
        Wish("I was charged twice for order {order}. Can I have it back?",
             ("lookup_order", {"charges": [{"amount": 39.9}, {"amount": 39.9}], "paid_by": "card"}),
             ("issue_refund", {"amount": 39.9}, {"refund": "R-77"}, "void_refund"),
             "Your 39.90 are on their way back to you; it takes three days at most."),
        Wish("The lamp of {order} came broken. I would like my money back.",
             ("lookup_order", {"item": "desk lamp", "amount": 24.5, "delivered": "Tuesday"}),
             ("issue_refund", {"amount": 24.5}, {"refund": "R-81"}, "void_refund"),
             "I am sorry about the lamp. 24.50 go back to your card, and you may keep it."),
        Wish("How long does a refund take? Mine for {order} is not there.",
             ("lookup_refund", {"refund": "R-63", "sent": "two days ago"}), None,
             "It left us two days ago, and your bank may take three. Please write again if it is not there on Friday."),
    ),
    ORDERS: (
        Wish("Where is my order {order}?",
             ("track_parcel", {"parcel": "DH-4471", "place": "in the van", "due": "today"}), None,
             "It is in the van and comes today before six."),
        Wish("Please send {order} to my new address: Lime Street 4.",
             ("lookup_order", {"state": "not sent yet"}),
             ("change_address", {"address": "Lime Street 4"}, {"done": True}, "change_address"),
             "Done: it goes to Lime Street 4."),
    ),
    INVOICES: (
        Wish("I need the invoice of {order} once more, with our tax number on it.",
             ("find_invoice", {"invoice": "2026-1184", "tax_number": None}),
             ("send_invoice", {"invoice": "2026-1184", "to": "the address on file"}, {"sent": True}, ""),
             "I have sent it to the address that we have on file."),
    ),
}  # fmt: skip
_A_DAY = {REFUNDS: 9, ORDERS: 6, INVOICES: 3}
_VERSIONS = {REFUNDS: ("2026-11-01", "2026-11-20"), ORDERS: ("7", "7"), INVOICES: ("3.1", "3.2")}
_FAILS = {REFUNDS: 0.16, ORDERS: 0.07, INVOICES: 0.1}  # shares of runs that go to a person


def steps(wish: Wish, order: str, ending: str = "resolved") -> Steps:
    """What happens in a run: it ends `resolved`, `handed_off`, `failed`, or goes on (`open`)."""
    usage = {"input_tokens": 1850, "output_tokens": 120}
    asks = wish.asks.format(order=order)
    tool, found = wish.finds
    call = {"provider": "openai", "model": "gpt-4.1", "usage": usage}
    made: list[tuple[str, dict[str, Any]]] = [
        ("started", {"input": asks, "channel": "chat"}), ("said", {"by": "customer", "text": asks}),
        ("model_called", {**call, "latency_ms": 1240.0, "output": "I look it up first."}),
        ("tool_called", {"tool": tool, "kind": "read", "arguments": {"order": order}, "result": found,
                         "latency_ms": 84.0}),
    ]  # fmt: skip
    if ending == "open":
        return made
    made.append(("model_called", {**call, "latency_ms": 980.0}))
    if ending == "failed":
        return [*made, ("finished", {"resolution": "failed", "error": "the model did not answer within 60 seconds"})]
    if wish.writes:
        name, given, result, undo = wish.writes
        done = {"tool": name, "kind": "write", "arguments": {"order": order, **given}, "undo": undo or None}
        wrong = {"error": "the payment provider does not answer", "latency_ms": 5000.0}
        well = {"result": result, "latency_ms": 410.0}
        made.append(("tool_called", done | (wrong if ending == "handed_off" else well)))
    if ending == "handed_off":
        return [
            *made,
            ("handed_off", {"to": "human", "reason": "It cannot be done just now", "context": {"order": order},
                            "summary": f"{asks} Nothing is done yet."}),
            ("finished", {"resolution": "handed_off"}),
        ]  # fmt: skip
    return [
        *made, ("said", {"by": "agent", "text": wish.answer}),
        ("finished", {"resolution": "resolved", "output": wish.answer}),
    ]  # fmt: skip


def four_weeks(now: datetime) -> Iterator[Received]:
    """The runs of each day up to today, the oldest first; the same ones each time."""
    chance, number = random.Random(7), 1000
    for back in range(DAYS, -1, -1):
        for agent, many in _A_DAY.items():
            for place in range(many + chance.randrange(-2, 3)):
                number += 1
                begin = now - timedelta(days=back, minutes=25 + 23 * place + chance.randrange(15))
                ending = "handed_off" if chance.random() < _FAILS[agent] else "resolved"
                ending = "failed" if chance.random() < 0.02 else ending
                yield from run(
                    f"run-{number}", begin, steps(chance.choice(WISHES[agent]), f"A-{number}", ending), agent=agent,
                    version=_VERSIONS[agent][back <= 6], ticket=f"T-{number}", customer=f"c-{number % 90}",
                )  # fmt: skip


COST, TRIPPED, WENT_ON = (
    "1.20384",
    12,
    14,
)  # of the run below: what it costs, at which event too much; calls of the next


def long_run(now: datetime) -> Iterator[Received]:
    """The run that the pictures tell of: much is said in it, it costs too much and is stopped, and a person has to take
    over."""
    first, second, third = WISHES[REFUNDS]
    more = [one for one in steps(second, "A-2044", "handed_off") if one[0] not in ("started", "handed_off", "finished")]
    between = [
        ("said", {"by": "agent", "text": third.answer}),
        ("said", {"by": "customer", "text": "That was last week's. And the lamp of A-2044 came broken as well."}),
    ]
    begun = [one for one in steps(first, "A-2043") if one[0] != "finished"]
    usage = {"input_tokens": 150_000, "output_tokens": 120}
    made = [(name, fields | {"usage": usage} if name == "model_called" else fields)
            for name, fields in [*begun, *between, *more, ("finished", {"resolution": "halted"})]]  # fmt: skip
    yield from run("run-2043", now, made, agent=REFUNDS,
                   version="2026-11-20", ticket="T-2043", customer="c-17")  # fmt: skip


def circling_run(now: datetime) -> Iterator[Received]:
    """A run that asks the same of a tool again and again, half an hour ago."""
    wish = WISHES[ORDERS][0]
    begun, call = steps(wish, "A-2044")[:3], steps(wish, "A-2044")[3]
    ended = [("said", {"by": "agent", "text": wish.answer}), ("finished", {"resolution": "resolved"})]
    yield from run("run-2044", now - timedelta(minutes=30), [*begun, *[call] * WENT_ON, *ended], agent=ORDERS,
                   version="7", ticket="T-2044", customer="c-18")  # fmt: skip


def left_run(agent: str, run_id: str, begin: datetime, asks: str, reason: str) -> Iterator[Received]:
    """A run that is handed to a person as soon as the customer has asked."""
    made = [("started", {"input": asks, "channel": "chat"}), ("said", {"by": "customer", "text": asks}),
            ("handed_off", {"to": "human", "reason": reason}), ("finished", {"resolution": "handed_off"})]  # fmt: skip
    yield from run(run_id, begin, made, agent=agent, version=_VERSIONS[agent][1], ticket=run_id.replace("run", "T"))
