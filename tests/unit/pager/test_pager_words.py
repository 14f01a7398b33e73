"""What agents wrote cannot do anything in a message; channels die and come back by figures."""

from datetime import timedelta

import pytest

from midwatch_services.pager import health, messages, words
from midwatch_services.pager.channels import alertmanager
from midwatch_services.pager.health import Health
from midwatch_services.pager.messages import Message
from pager_helpers import NOON


def message(**fields: object) -> Message:
    usual = {
        "id": "g-1", "what": "page", "group_id": "g", "alert_id": "a-1", "severity": "page", "agent": "desk",
        "rule": "budget_run", "title": "Run r has spent $1.20 of its $1.00 budget", "started_at": NOON,
    }  # fmt: skip
    return Message(**{**usual, **fields})  # type: ignore[arg-type]


EVIL = [
    "<script>alert(1)</script>", "<!channel>", "<https://evil.example|your bank>", "[click](http://evil.example)",
    "`code` *bold* ~gone~ ||spoiler||", "@everyone @here", "&lt;b&gt;", "http://evil.example", "# A heading",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_markup_mentions_and_links_of_an_agent_are_plain_text(text: str) -> None:
    said = messages.title(message(title=text)) + messages.body(message(run_id=text, note=text, evidence=text))
    for sign in ("<", ">", "`", "*", "[", "]", "@", "&", "|", "~", "#"):
        assert sign not in said
    if not text.startswith("http"):
        assert "://" not in said


def test_evidence_that_is_a_link_and_nothing_else_stays_one() -> None:
    assert words.evidence("https://runs.example/r-1?x=2") == "https://runs.example/r-1?x=2"
    assert "://" not in words.evidence("https://runs.example/ see https://evil.example")
    assert "://" not in words.evidence("javascript://x")
    assert words.evidence("midwatch show run-1") == "midwatch show run-1"


def test_control_characters_and_length_are_bounded() -> None:
    assert words.one_line("a\x1b[2J\r\nBcc: x\u202eevil\0") == "a [2J Bcc: x evil"
    assert len(words.one_line("x" * 10_000, 300)) == 300


def test_the_sentence_comes_first_and_the_way_to_take_it_on_last() -> None:
    page = message(action_taken="halted_run", alerts=12, open=9, repeats=3, run_id="r", evidence="midwatch show r")
    assert messages.title(page) == "Run r has spent $1.20 of its $1.00 budget"
    assert messages.body(page) == (
        "Agent desk, budget_run (page).\n"
        "What was done: the run was halted.\n"
        "12 alerts of this cause, 9 of them open, raised again 3 times.\n"
        "Run: r\n"
        "See: midwatch show r\n"
        "To take it on: midwatch ack a-1"
    )


def test_an_id_is_shortened_where_it_is_ours_and_quoted_where_it_is_not() -> None:
    assert messages.acknowledge("3f9a1c" + "0" * 26) == "midwatch ack 3f9a1c000000"
    assert messages.acknowledge("x; rm -rf /") == "midwatch ack 'x; rm -rf /'"


def test_the_address_of_a_channel_is_never_shown_whole() -> None:
    assert words.scheme_and_host("https://ann:pw@hooks.example:8443/T0/B0?x=y") == "https://hooks.example:8443"
    assert words.scheme_and_host("mailtos://u:pw@smtp.example?to=a@b.example") == "mailtos://smtp.example"
    assert words.scheme_and_host("slack://TOKENA/TOKENB/TOKENC") == "slack://…"


def test_alertmanager_is_told_when_it_fires_until_when_and_when_it_was_over() -> None:
    later = NOON + timedelta(minutes=3)
    firing = alertmanager.payload(message(), later)
    assert (firing["startsAt"], firing["endsAt"]) == ("2026-11-22T12:00:00.000Z", "2026-11-22T12:08:00.000Z")
    over = alertmanager.payload(message(what="ended", ended_at=NOON + timedelta(minutes=1)), later)
    assert over["endsAt"] == "2026-11-22T12:01:00.000Z"
    assert over["labels"] == firing["labels"]


# Channels


def fails(*after_seconds: float, refused: bool = False) -> Health:
    found = Health(channel="ann")
    for seconds in after_seconds:
        found = health.failed(found, "it answers 500", NOON + timedelta(seconds=seconds), refused=refused)
    return found


@pytest.mark.parametrize(
    ("after", "dead"), [((0, 1), False), ((0, 60, 119), False), ((0, 120), False), ((0, 60, 120), True)]
)
def test_a_channel_is_dead_after_several_failures_over_two_minutes(after: tuple[float, ...], dead: bool) -> None:
    assert (fails(*after).dead_at is not None) == dead


def test_one_refusal_is_enough_and_one_success_undoes_it() -> None:
    dead = fails(0, refused=True)
    assert dead.dead_at == NOON
    assert health.worked(dead) == Health(channel="ann")
