"""What is kept of a run: what its events say, and unknown where they say nothing."""

from typing import Any

import pytest

from midwatch_services.drift import facts, text
from midwatch_services.drift.policy import POLICY

RUN: dict[str, Any] = {
    "agent": "desk", "run_id": "r-1", "mode": "live", "version": "7", "ticket": "T-1", "customer": "c-1",
    "resolution": "resolved",
    "ended_at": "2026-11-21T12:00:00.000000Z", "handed_off_to": None, "cost_usd": "0.0123", "unpriced_calls": 0,
    "input_tokens": 900, "output_tokens": 100, "latency_ms": 30_500.0, "model_ms": 4_000.0, "model_calls": 2,
}  # fmt: skip


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "data": data}


def test_a_run_in_figures() -> None:
    found = facts.of(
        RUN,
        [
            event("started", input="Hello"),
            event("said", by="customer", text="Hello, I would like to cancel my three reservations please."),
            event("tool_called", tool="lookup"),
            event("tool_called", tool="lookup"),
            event("tool_called", tool="cancel"),
            event("said", by="agent", text="Done."),
            event("said", by="human", text="I have looked at it as well, and all is well."),
            event("finished", resolution="resolved"),
        ],
    )
    assert (found.agent, found.run_id, found.version, found.ticket, found.day) == (
        "desk", "r-1", "7", "T-1", "2026-11-21",
    )  # fmt: skip
    assert (found.customer, found.person) == ("c-1", "cc-1")
    assert found.tools == {"lookup": 2, "cancel": 1}
    assert (found.cost, found.tokens, found.written) == (0.0123, 1000, 100)
    assert (found.seconds, found.call_seconds) == (30.5, 2.0)
    assert (found.messages, found.answers, found.characters, found.answer) == (3, 1, 5, 5.0)
    assert found.language == "en"
    assert found.words == {"cancel": "cancel", "reserv": "reservations"}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"cost_usd": None}, "cost"),
        ({"unpriced_calls": 1}, "cost"),
        ({"cost_usd": "9" * 400}, "cost"),
        ({"input_tokens": 0, "output_tokens": 0}, "tokens"),
        ({"latency_ms": None}, "seconds"),
        ({"latency_ms": -5.0}, "seconds"),
        ({"model_ms": 0.0}, "call_seconds"),
    ],
)
def test_what_is_not_known_is_unknown(wrong: dict[str, Any], field: str) -> None:
    assert getattr(facts.of({**RUN, **wrong}, []), field) is None


def test_a_customer_who_is_heard_only_at_the_beginning_is_heard() -> None:
    given = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "refund please"}]
    assert "refund" in facts.of(RUN, [event("started", input=given)]).words
    assert "refund" in facts.of(RUN, [event("started", input="A refund please")]).words
    assert facts.of(RUN, [event("started", input=None)]).words == {}


def test_a_run_with_a_thousand_tools_and_a_book_of_text_is_kept_in_bounds() -> None:
    calls = [event("tool_called", tool=f"{n}-" + "x" * 500) for n in range(1000)]
    book = " ".join(f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}word{chr(97 + n // 676)}" for n in range(5000))
    found = facts.of(RUN, [*calls, event("said", by="customer", text=book)])
    assert len(found.tools) == POLICY.tools_kept
    assert max(map(len, found.tools)) == POLICY.name_kept
    assert len(found.words) <= POLICY.words_most


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("Ich möchte bitte meine Bestellung stornieren, sie ist noch nicht angekommen.", "de"),
        ("Je voudrais annuler ma commande, elle n'est toujours pas arrivée chez moi.", "fr"),
        ("I would like to cancel my order, it has not arrived yet at my house.", "en"),
        ("cancel 12345", "unknown"),
        ("1234567890 " * 50, "unknown"),
        ("", "unknown"),
    ],
)
def test_a_language_is_named_where_there_is_text_enough(said: str, short: str) -> None:
    assert [text.language(said) for _ in range(3)] == [short] * 3


def test_words_are_stems_of_their_own_language() -> None:
    assert text.words("Die Bestellungen, eine Bestellung", "de") == {"bestell": "bestellungen"}
    sentence = "I have a problem with ORDER-4711: could you help, please?"
    assert text.words(sentence, "en") == {"problem": "problem", "order": "order", "help": "help"}
    assert text.words("order \x00\ud800 lookups", "unknown") == {"order": "order", "lookups": "lookups"}


def test_the_number_by_which_runs_are_drawn_follows_from_their_id() -> None:
    assert facts.draw_of("r-1") == facts.draw_of("r-1") != facts.draw_of("r-2")
    assert all(0 <= facts.draw_of(str(n)) < 1 for n in range(1000))
    assert 450 < sum(facts.draw_of(str(n)) < 0.5 for n in range(1000)) < 550
