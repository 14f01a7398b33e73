"""What a run and two of them side by side say, asked over HTTP from a real console beside a real run log."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

from msgspec import structs
from nats.js import JetStreamContext

from console_helpers import Running
from midwatch.contracts import codec
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.settings import Settings
from midwatch_services.console.access.roles import Role
from midwatch_services.console.texts import load
from midwatch_services.dossier import judged
from reading_helpers import AGENT, arm, fill, refund, refund_card, run, told_of

NOW = utc_now()


async def test_a_clock_that_is_wrong_all_along_is_told_once_and_else_where_it_is(
    running: Running, settings: Settings
) -> None:
    late = [replace(one, stored_at=one.stored_at + timedelta(minutes=8)) for one in run("late", NOW, refund("A-1"))]
    waited = list(run("waited", NOW, refund("A-2")))
    waited[3] = replace(waited[3], stored_at=waited[3].stored_at + timedelta(minutes=8))
    await fill(settings, iter([*late, *waited]))
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get(f"/runs/{AGENT}/late")).text
        assert page.count("Its events came 8 minutes after the times that stand here") == 1
        assert "Came 8 minutes after this time" not in page
        page = (await ann.get(f"/runs/{AGENT}/waited")).text
        assert "Its events came" not in page
        assert page.count("Came 8 minutes after this time") == 1


async def test_two_long_answers_are_shown_where_they_begin_to_differ(running: Running, settings: Settings) -> None:
    same = "The same in both. " * 50
    for run_id, end in (("one", "It comes on Monday."), ("other", "It comes on Friday.")):
        answers = [
            ("started", {"input": same}), ("finished", {"resolution": "resolved", "output": f"{same}{end} {same}"}),
        ]  # fmt: skip
        await fill(settings, run(run_id, NOW, answers))
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get(f"/compare?a={AGENT}/one&b={AGENT}/other")).text
        assert "1 of 2 steps differs." in page
        assert re.findall("<mark>([^<]+)</mark>", page) == ["Monday", "Friday"]
        assert page.count("(cut: shown from shortly before the two differ)") == 2
        assert page.count("(cut: only its beginning is shown)") == 2


async def test_steps_with_the_same_words_but_other_tokens_or_another_cost_are_not_called_the_same(
    running: Running, settings: Settings
) -> None:
    def of(tokens: int) -> list[tuple[str, dict[str, Any]]]:
        called = {"provider": "openai", "model": "gpt-4.1", "usage": {"input_tokens": tokens, "output_tokens": 120}}
        reported = {"model": "m", "cost_usd": str(tokens)}
        return [("started", {"input": "Hello"}), ("model_called", called), ("model_called", reported)]

    for run_id, tokens in (("one", 150_000), ("other", 1850)):
        await fill(settings, run(run_id, utc_now(), of(tokens)))
    async with running.person(Role.VIEWER) as ann:
        page = (await ann.get(f"/compare?a={AGENT}/one&b={AGENT}/other")).text
        assert "2 of 3 steps differ." in page
        marks = re.findall(r'<p class="mark"><span aria-hidden="true">(.)</span> ([^<]+)</p>', page)
        other = ("≈", "The same words, but other tokens or another cost")
        assert marks == [("=", "The same"), other, other]
        alike = (await ann.get(f"/compare?a={AGENT}/one&b={AGENT}/one")).text
        assert "0 of 3 steps differ." in alike


async def test_a_rule_is_told_in_the_words_of_the_console_and_in_no_others(
    js: JetStreamContext, running: Running, settings: Settings
) -> None:
    assert {name for name in judged._WORDS if not load().has(f"judged.{name}")} == set()
    await arm(js, refund_card())
    alerts = [
        told_of("r-1", NOW, action_taken="halted_run"),
        told_of("r-1", NOW, action_taken="would_halt_agent", rule="drift"),
    ]
    alerts[1] = codec.envelope(
        "alert", "raised", structs.replace(alerts[1].data, alert_id="a-2"), source="/x", time=NOW
    )  # fmt: skip
    await fill(settings, run("r-1", utc_now(), refund("A-1")), *alerts)
    async with running.person(Role.VIEWER) as ann:
        page = re.sub(r"\s+", " ", (await ann.get(f"/runs/{AGENT}/r-1/rules")).text)
    for words in (
        "People are told at 3, the run is stopped at 5", "by the price list", "in a row at most", "1 at most",
        "The run was stopped:", "The agent would have been stopped:", "See the alert",
    ):  # fmt: skip
        assert words in page, page
