"""Each agent's own rules, as its card says them now; safe where they cannot be used."""

import dataclasses
from typing import Any

import pytest
import structlog.testing

from logged import alert, received
from midwatch.contracts.control import REDACTED, Card, LogRule, RedactRule
from midwatch_services.logger.redaction import book as module
from midwatch_services.logger.redaction.book import RedactionBook
from midwatch_services.logger.redaction.rules import compiled

MAIL = "dana.moore@example.com"


def card(*redact: RedactRule) -> Card:
    return Card(agent="desk", owner="", purpose="", can=[], log=LogRule(redact=redact))


def stored(book: RedactionBook, **fields: Any) -> tuple[str, Any]:
    [one] = book.events([received("finished", resolution="failed", **fields)])
    return one.body.decode(), one.event.data


def test_an_agent_without_a_card_gets_the_defaults() -> None:
    body, data = stored(RedactionBook(), error=f"no {MAIL}")
    assert data.error == "no [email]"
    assert MAIL not in body


def test_each_agent_has_its_own_rules() -> None:
    cards = {"desk": card(), "other": card(RedactRule(name="email"))}
    book = RedactionBook(cards.__getitem__)
    ours, theirs = book.events([received("started", input=MAIL, agent=agent) for agent in ("desk", "other")])
    assert (ours.event.data.input, theirs.event.data.input) == (MAIL, "[email]")
    assert book.redact_many("desk", [ours.body]) == [ours.body]


def test_a_changed_card_is_obeyed_by_the_next_event() -> None:
    cards = {"desk": card()}
    book = RedactionBook(lambda agent: cards[agent])
    assert stored(book, error=MAIL)[1].error == MAIL
    cards["desk"] = card(RedactRule(name="who", pattern=r"dana\.\w+"))
    assert stored(book, error=MAIL)[1].error == "[who]@example.com"


@pytest.mark.parametrize(
    "bad", [RedactRule(name="x", pattern="(a"), RedactRule(name="x", pattern="a*"), RedactRule(name="nothing")]
)
def test_a_card_written_around_apply_is_redacted_by_default_and_said_once(bad: RedactRule) -> None:
    book = RedactionBook(lambda _: card(bad, RedactRule(name="order_no", pattern=r"A-\d{4}")))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert stored(book, error=f"{MAIL} A-1234")[1].error == "[email] [order_no]"
    assert [entry["event"] for entry in logs] == ["redaction_rules_unusable"]
    assert "midwatch apply" in logs[0]["mend"]


def test_a_reversible_rule_without_a_key_is_applied_for_good_and_said_once() -> None:
    book = RedactionBook(lambda _: card(RedactRule(name="email", reversible=True)))
    with structlog.testing.capture_logs() as logs:
        assert [stored(book, error=MAIL)[1].error for _ in range(3)] == ["[email]"] * 3
    assert [(entry["event"], entry["agent"]) for entry in logs] == [("redaction_without_key", "desk")]


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("started", {"input": [{"role": "user", "content": MAIL}]}), ("said", {"by": "customer", "text": MAIL}),
        ("tool_called", {"tool": "t", "result": MAIL}), ("handed_off", {"to": "human", "reason": MAIL}),
        ("proposed", {"action": MAIL}), ("human_acted", {"action": MAIL}),
        ("model_called", {"model": "m", "output": MAIL}),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_through_is_kept_without_its_texts(
    event: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: str) -> Any:
        raise RuntimeError

    rules = compiled(REDACTED)
    failing = dataclasses.replace(rules, finders=tuple(dataclasses.replace(one, find=broken) for one in rules.finders))
    monkeypatch.setattr(module, "compiled", lambda *_: failing)
    sent = received(event, ticket="T-1", labels={"l": MAIL}, **fields)
    with structlog.testing.capture_logs() as logs:
        [one] = RedactionBook().events([sent])
    assert MAIL.encode() not in one.body
    assert (one.event.id, one.event.time, one.event.data.ticket) == (sent.event.id, sent.event.time, "T-1")
    assert logs[0]["event"] == "redaction_failed" and MAIL not in str(logs)


def test_the_words_of_an_alert_are_redacted_by_the_rules_of_its_agent() -> None:
    book = RedactionBook(lambda agent: card(*(REDACTED if agent == "desk" else ())))
    raised = alert("raised", title=f"Run r-1 wrote to {MAIL}")
    assert book.alert(raised, "desk").data.title == "Run r-1 wrote to [email]"
    assert book.alert(raised, "other").data.title == f"Run r-1 wrote to {MAIL}"
    assert book.alert(alert("resolved", reason=f"{MAIL} wrote"), "desk").data.reason == "[email] wrote"
    assert book.alert(raised, "desk").data.dedupe_key == raised.data.dedupe_key
