"""The schedule on a real server: each rate is published before it draws, whatever is repeated or late."""

from datetime import timedelta
from typing import Any

import pytest
from nats.js import JetStreamContext

import schedule_helpers
from midwatch.contracts import subjects
from midwatch.contracts.control import BesidesRule
from midwatch.contracts.governance import AlertRaised
from midwatch.contracts.reviews import ReviewRated, ReviewSampled
from midwatch_services.reviewer_sampler.schedule.handlers import heard
from schedule_helpers import QUEUE, Bed, day, read_well, tapered

# Fixtures of this file
url, bed = schedule_helpers.url, schedule_helpers.bed


async def test_an_agent_begins_at_its_cards_rate_and_says_so_before_its_first_draw(
    bed: Bed, js: JetStreamContext
) -> None:
    await bed.run("run-1")
    await bed.run("run-2")
    assert await bed.rates() == [(1.0, 0, "began")]
    assert len(await bed.said(ReviewSampled)) == 2


async def test_the_rate_falls_step_by_step_and_each_run_is_drawn_at_the_one_in_force(bed: Bed) -> None:
    await read_well(bed)
    for at in ("2026-01-30", "2026-01-31", "2026-02-06", "2026-02-07", "2026-04-01"):
        bed.time = day(at)
        await bed.scheduler.look()
        await bed.run(f"at-{at}")
    assert await bed.rates() == [(1.0, 0, "began"), (0.5, 1, "tapered"), (0.25, 2, "tapered")]
    assert await bed.rows("SELECT run_id, rate FROM reviewer_sampler_runs WHERE run_id LIKE 'at-%' ORDER BY 1") == [
        ("at-2026-01-30", 1.0), ("at-2026-01-31", 0.5), ("at-2026-02-06", 0.5), ("at-2026-02-07", 0.25),
        ("at-2026-04-01", 0.25),
    ]  # fmt: skip
    tapered = (await bed.said(ReviewRated))[1]
    assert (tapered.judged, tapered.failed, round(tapered.upper or 0, 4)) == (130, 0, 0.0287)


async def test_days_missed_in_an_outage_end_where_they_would_have(bed: Bed) -> None:
    await read_well(bed)
    bed.time = day("2026-04-01")
    await bed.scheduler.look()
    await bed.scheduler.look()
    assert await bed.rates() == [(1.0, 0, "began"), (0.5, 1, "tapered"), (0.25, 2, "tapered")]


async def test_a_look_that_finds_nothing_writes_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    await bed.run("run-1")
    await bed.scheduler.look()
    await bed.planner.look()

    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("written")

    await bed.sampler.outbox.drain()
    monkeypatch.setattr(bed.database, "write", refuse)
    await bed.scheduler.look()
    await bed.planner.look()


async def test_a_new_version_is_drawn_at_the_first_rate_from_its_first_run_on(bed: Bed) -> None:
    await tapered(bed)
    batch = [
        bed.received("old"),
        bed.received("new", version="2"),
        bed.received("old-2"),
        bed.received("new-2", version="2"),
    ]
    await bed.sampler.on_events(batch)
    await bed.sampler.on_events([bed.received("old-3"), bed.received("new-3", version="2")])
    assert (await bed.rates())[3:] == [(1.0, 0, "version")]
    assert dict(await bed.rows("SELECT run_id, rate FROM reviewer_sampler_runs WHERE run_id LIKE '%old%'")) == {
        "old": 0.25, "old-2": 1.0, "old-3": 1.0,
    }  # fmt: skip
    [what] = [one.what for one in (await bed.said(ReviewRated))[3:]]
    assert what == "2"


@pytest.mark.parametrize("mode", ["replay", "eval", "drill", "shadow"])
async def test_no_run_but_a_live_one_moves_a_schedule(bed: Bed, mode: str) -> None:
    await bed.run("run-1", mode=mode, version="9")
    assert await bed.rates() == []
    await tapered(bed)
    await bed.run("run-2", mode=mode, version="10")
    assert (await bed.rates())[-1] == (0.25, 2, "tapered")
    [(rate,)] = await bed.rows("SELECT rate FROM reviewer_sampler_runs WHERE run_id = 'run-2'")
    assert rate == (1.0 if mode == "replay" else 0.25)


async def test_a_page_a_drift_and_a_halt_bring_it_back_once_however_often_they_come(bed: Bed) -> None:
    await tapered(bed)
    page, drift = bed.alert(), bed.alert(rule="drift", severity="ticket", at=bed.time + timedelta(days=1))
    fleet = bed.halt("fleet", at=bed.time + timedelta(days=2))
    await bed.hear(page, page)
    await bed.hear(fleet, drift)
    await bed.hear(drift, page, fleet)
    assert (await bed.rates())[3:] == [(1.0, 0, "incident"), (1.0, 0, "halt")]


async def test_a_halt_of_the_fleet_brings_back_every_agent(bed: Bed) -> None:
    await bed.card("other", rate=0.3)
    await tapered(bed)
    await bed.run("o", agent="other")
    bed.time += timedelta(days=1)
    await bed.hear(bed.halt("fleet", drill=True))
    await bed.hear(bed.halt("fleet"))
    assert (await bed.rates())[3:] == [(1.0, 0, "halt")]
    assert await bed.rates("other") == [(0.3, 0, "began"), (0.3, 0, "halt")]


async def test_failing_runs_bring_the_first_rate_back(bed: Bed) -> None:
    await tapered(bed)
    await bed.sampler.on_events([bed.received(f"late-{number}") for number in range(200)])
    await bed.judged({f"late-{number}": "fail" if number % 5 == 0 else "pass" for number in range(200)})
    bed.time += timedelta(days=1)
    await bed.scheduler.look()
    assert (await bed.rates())[3:] == [(1.0, 0, "failing")]


async def test_fails_that_wait_for_a_second_person_hold_the_rate_until_they_are_settled(bed: Bed) -> None:
    await read_well(bed)
    waiting = [f"late-{number}" for number in range(4)]
    await bed.sampler.on_events([bed.received(run_id) for run_id in waiting])
    await bed.failed_once(*waiting)
    bed.time = day("2026-03-01")
    await bed.scheduler.look()
    assert await bed.rates() == [(1.0, 0, "began")]
    bed.time = day("2026-03-02")
    await bed.judged(dict.fromkeys(waiting, "pass"))
    await bed.scheduler.look()
    # As the first of March ended they still waited, however late that day is judged.
    assert (await bed.rates())[1:] == []
    bed.time = day("2026-03-03")
    await bed.scheduler.look()
    assert (await bed.rates())[1:] == [(0.5, 1, "tapered")]


async def test_only_drawn_and_settled_runs_count(bed: Bed) -> None:
    await bed.card(rate=0.0, besides=BesidesRule(tools=["pay"]))
    for number in range(130):
        await bed.run(f"run-{number}", "tool_called", tool="pay")
    await bed.judged({f"run-{number}": "fail" for number in range(130)})
    assert len(await bed.rows(QUEUE)) == 130
    bed.time = day("2026-03-01")
    await bed.scheduler.look()
    assert [(one.judged, one.failed) for one in await bed.said(ReviewRated)] == [(0, 0)]


async def test_a_new_card_changes_the_rate_and_keeps_the_step(bed: Bed) -> None:
    await tapered(bed)
    await bed.card(rate=0.8, taper=(0.6, 0.4))
    await bed.scheduler.look()
    await bed.scheduler.look()
    assert (await bed.rates())[3:] == [(0.4, 2, "card")]


# The hours of a day


async def test_what_a_day_has_no_time_for_is_due_later_and_the_queue_follows(bed: Bed) -> None:
    await bed.card(rate=1.0, minutes_a_day=6)  # two of three minutes each
    for number in range(5):
        await bed.run(f"run-{number}")
        bed.time += timedelta(seconds=1)
    await bed.planner.look()
    due = "SELECT run_id, due_day FROM reviewer_sampler_queue ORDER BY run_id"
    assert [at for _, at in await bed.rows(due)] == ["2026-01-01"] * 2 + ["2026-01-02"] * 2 + ["2026-01-03"]
    await bed.judged({"run-0": "pass", "run-1": "pass"})
    bed.time = day("2026-01-02")
    await bed.planner.look()
    assert [at for _, at in await bed.rows(due)][2:] == ["2026-01-02", "2026-01-02", "2026-01-03"]


async def test_a_run_that_waits_too_long_raises_one_ticket_that_ends_by_itself(bed: Bed, js: JetStreamContext) -> None:
    async def alerts() -> list[tuple[str, Any]]:
        await bed.sampler.outbox.drain()
        info = await js.stream_info(subjects.GOVERNANCE, subjects_filter="midwatch.alert.>")
        return sorted((info.state.subjects or {}).items())

    await bed.run("run-1")
    await bed.run("run-2")
    bed.time += timedelta(days=3)
    await bed.planner.look()
    assert await alerts() == []
    bed.time += timedelta(minutes=1)
    for _ in range(3):
        await bed.planner.look()
    assert await alerts() == [("midwatch.alert.desk.raised", 1)]
    message = await js.get_last_msg(subjects.GOVERNANCE, "midwatch.alert.desk.raised")
    raised = heard("midwatch.alert.desk.raised", message.data or b"").data
    assert isinstance(raised, AlertRaised)
    assert (raised.rule, raised.severity, raised.dedupe_key) == ("review_ageing", "ticket", "review_ageing/desk")
    await bed.judged({"run-1": "pass", "run-2": "fail"})
    await bed.planner.look()
    assert await alerts() == [("midwatch.alert.desk.raised", 1), ("midwatch.alert.desk.resolved", 1)]
    await bed.planner.look()
    assert len(await bed.rows("SELECT * FROM reviewer_sampler_ageing")) == 0
