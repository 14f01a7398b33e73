"""Retention on both databases: what is past goes whole, what is held or younger stays, and the chain says so."""

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kept import (
    NOW,
    ago,
    alerts,
    count,
    empty_log,
    lift_hold,
    place_hold,
    placed,
    run_ids,
    save,
    save_alert_of,
    sqlite_url,
    whole_run,
)  # fmt: skip
from logged import received
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch_services.logger.evidence import chain_store
from midwatch_services.logger.keeping.hold_store import held
from midwatch_services.logger.keeping.keep_store import Gone
from midwatch_services.logger.keeping.policy import KeepOf
from midwatch_services.logger.keeping.sweep import ClockLeapt, Report, Sweep, hourly
from midwatch_services.logger.partitions import partitions


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = sqlite_url(tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with empty_log(url) as database:
        yield database
    faults.set_hook(None)


def keeps(**days: float) -> KeepOf:
    """400 days, unless an agent is named."""
    return lambda agent: timedelta(days=days.get(agent, 400))


async def sweep(log: Database, keep_of: KeepOf = keeps(), *, now: datetime = NOW, asked: bool = False) -> Report:  # noqa: B008
    return await Sweep(log, keep_of, lambda: now, asked).run()


async def test_what_is_past_goes_whole_and_nothing_younger(log: Database) -> None:
    for run_id, days in (("old", 401), ("edge", 399.9), ("new", 1)):
        save(log, whole_run(run_id, days))
        save_alert_of(log, run_id, days)
    report = await sweep(log)
    assert report.gone == {"desk": Gone(1, 3, 1)}
    assert run_ids(log) == ["edge", "new"]
    assert alerts(log) == ["alert-edge", "alert-new"]
    assert count(log, "logger_events") == 6


async def test_age_counts_from_when_the_log_last_heard_of_the_run(log: Database) -> None:
    late = received("finished", run_id="old", seq=9, resolution="resolved", at=ago(500), stored_at=ago(10))
    save(log, whole_run("old", 500))
    save(log, [placed(late), *whole_run("new", 0)])
    assert (await sweep(log)).gone == {}
    assert run_ids(log) == ["new", "old"]


async def test_each_agent_has_its_own_age(log: Database) -> None:
    for agent in ("desk", "other"):
        save(log, whole_run("r", 300, agent=agent))
    save(log, whole_run("new", 0))
    assert (await sweep(log, keeps(other=200))).gone == {"other": Gone(1, 3, 0)}
    assert count(log, "logger_events") == 6


@pytest.mark.parametrize(
    "what",
    [
        {"agent": "desk"}, {"run_id": "old"}, {"ticket": "T-1"}, {"customer": "c-7"}, {"ticket": "T-2"},
        {"run_id": "old", "agent": "desk"}, {"ticket": "T-1", "until": ago(-30)},
    ],
)  # fmt: skip
async def test_a_held_run_stays_until_the_hold_is_lifted(log: Database, what: dict[str, Any]) -> None:
    save(log, whole_run("old", 500, ticket="T-1", customer="c-7"))
    other_ticket = received(
        "said", run_id="old", seq=7, by="agent", text="x", ticket="T-2", at=ago(500), stored_at=ago(500)
    )
    save(log, [placed(other_ticket)])
    save(log, [*whole_run("old-too", 500, agent="other"), *whole_run("new", 0)])
    save_alert_of(log, "old", 500)
    place_hold(log, **what)
    report = await sweep(log)
    assert (report.held, run_ids(log), alerts(log)) == ({"desk": 1}, ["new", "old"], ["alert-old"])
    found = log.read_now(lambda conn: held(conn, "desk", ["old", "new"], now=NOW))
    expected = {"old", "new"} if what == {"agent": "desk"} else {"old"}
    assert (found.keys(), found["old"]["reason"]) == (expected, "a claim")
    lift_hold(log)
    await sweep(log)
    assert (run_ids(log), count(log, "logger_holds")) == (["new"], 1)


async def test_a_hold_that_is_over_or_for_another_holds_nothing(log: Database) -> None:
    save(log, [*whole_run("old", 500, ticket="T-1"), *whole_run("new", 0)])
    place_hold(log, "hold-1", run_id="old", agent="other")
    place_hold(log, "hold-2", ticket="T-1", until=ago(0.5))
    await sweep(log)
    assert run_ids(log) == ["new"]


async def test_the_chain_says_which_places_are_gone(log: Database) -> None:
    first, kept, last = whole_run("a", 500), whole_run("b", 450), whole_run("c", 420)
    save(log, [*first, *kept, *last, *whole_run("new", 0)])
    place_hold(log, run_id="b")
    await sweep(log)
    ranges = removals(log)
    place = {one.stream_seq: (1 << 44) + one.stream_seq for one in [*first, *last]}
    assert sorted(ranges) == [
        [place[first[0].stream_seq], place[first[-1].stream_seq], 3],
        [place[last[0].stream_seq], place[last[-1].stream_seq], 3],
    ]


def removals(log: Database, agent: str = "desk") -> list[list[int]]:
    blocks = log.read_now(lambda conn: list(chain_store.blocks(conn, agent)))
    return [span for one in blocks if one.kind == "removal" for span in msgspec.json.decode(one.note)["ranges"]]


async def test_a_dry_run_says_what_would_go_and_removes_nothing(log: Database) -> None:
    save(log, [*whole_run("old", 500), *whole_run("older", 600), *whole_run("new", 0)])
    save_alert_of(log, "old", 500)
    place_hold(log, run_id="older")
    report = await Sweep(log, keeps(), lambda: NOW).preview()
    assert (report.gone, report.held) == ({"desk": Gone(1, 3, 1)}, {"desk": 1})
    assert run_ids(log) == ["new", "old", "older"]


async def test_a_clock_years_ahead_removes_nothing_more_than_a_day_early(log: Database) -> None:
    save(log, [*whole_run("a", 399.5), *whole_run("b", 390), *whole_run("new", 0)])
    await sweep(log, now=NOW + timedelta(days=3650))
    assert run_ids(log) == ["b", "new"]


async def test_where_the_servers_clock_has_jumped_too_a_person_must_ask(log: Database) -> None:
    save(log, [*whole_run("a", 10), *whole_run("new", 0)])
    await sweep(log)
    ahead = NOW + timedelta(days=3650)
    save(log, whole_run("from the future", -3650))
    with pytest.raises(ClockLeapt, match="midwatch keep run"):
        await sweep(log, now=ahead)
    assert run_ids(log) == ["a", "from the future", "new"]
    await sweep(log, now=ahead, asked=True)
    assert run_ids(log) == ["from the future"]


async def test_alerts_of_no_run_go_once_they_are_past_and_over(log: Database) -> None:
    save(log, whole_run("new", 0))
    save_alert_of(log, None, 500)
    save_alert_of(log, None, 501, over=False)
    save_alert_of(log, None, 10)
    save_alert_of(log, "never logged", 500, over=False)
    await sweep(log)
    assert alerts(log) == ["alert-10", "alert-501"]


@pytest.mark.parametrize("point", ["keeping.counted", "keeping.removed", "keeping.dropped"])
async def test_a_pass_that_dies_anywhere_is_finished_by_the_next(log: Database, point: str) -> None:
    if point == "keeping.dropped" and log.dialect == "sqlite":
        pytest.skip("SQLite has no partitions")
    save(log, [*whole_run("a", 500), *whole_run("b", 450), *whole_run("held", 450), *whole_run("new", 0)])
    place_hold(log, run_id="held")

    def die(reached: str) -> None:
        if reached == point:
            raise RuntimeError(point)

    faults.set_hook(die)
    with pytest.raises(RuntimeError, match=point):
        await sweep(log)
    faults.set_hook(None)
    assert run_ids(log) == ["a", "b", "held", "new"]
    await sweep(log)
    assert (run_ids(log), sum(span[2] for span in removals(log))) == (["held", "new"], 6)


async def test_the_logger_makes_a_pass_when_it_begins_and_then_waits_an_hour(log: Database) -> None:
    tick = hourly(log, keeps(), lambda: NOW)
    save(log, [*whole_run("a", 500), *whole_run("new", 0)])
    await tick()
    assert run_ids(log) == ["new"]
    save(log, whole_run("b", 500))
    await tick()
    assert run_ids(log) == ["b", "new"]


async def test_two_passes_at_once_remove_each_run_once(log: Database) -> None:
    for number in range(40):
        save(log, whole_run(f"r-{number}", 500 + number))
    save(log, whole_run("new", 0))
    passes = await asyncio.gather(*(Sweep(log, keeps(), lambda: NOW).run() for _ in range(2)))
    assert sum((one.gone.get("desk", Gone()) for one in passes), Gone()).runs == 40
    assert sum(span[2] for span in removals(log)) == 120


@pytest.mark.postgres
class TestMonths:
    """PostgreSQL: a month in which nothing must be kept is dropped."""

    @pytest.fixture
    def log(self, postgres_url: str) -> Iterator[Database]:
        with empty_log(postgres_url) as database:
            yield database
        faults.set_hook(None)

    async def test_a_month_goes_at_once_and_one_with_a_held_run_stays(self, log: Database) -> None:
        save(log, [*whole_run("a", 500), *whole_run("b", 501, agent="other")])  # 2025-07
        save(log, [*whole_run("c", 470), *whole_run("held", 470)])  # 2025-08
        save(log, whole_run("new", 0))
        place_hold(log, run_id="held")
        report = await sweep(log)
        assert report.months == ["2025-07"]
        assert log.read_now(partitions) == ["2025-08", "2026-11"]
        assert (run_ids(log), count(log, "logger_events")) == (["held", "new"], 6)
        assert [span[2] for agent in ("desk", "other") for span in removals(log, agent)] == [3, 3, 3]

    async def test_a_month_that_an_agent_still_needs_stays(self, log: Database) -> None:
        save(log, [*whole_run("a", 500), *whole_run("b", 500, agent="other"), *whole_run("new", 0)])
        report = await sweep(log, keeps(other=600))
        assert (report.months, run_ids(log)) == ([], ["b", "new"])

    async def test_a_reader_without_a_pause_holds_up_neither_the_logger_nor_the_rest(self, log: Database) -> None:
        save(log, [*whole_run("a", 500), *whole_run("new", 0)])
        with log.engine.connect() as reader:
            reader.exec_driver_sql("SELECT count(*) FROM logger_events").scalar()
            passing = asyncio.create_task(sweep(log))
            for number in range(5):
                batch = whole_run(f"r-{number}", -31 * number)  # each of another month
                await asyncio.wait_for(asyncio.to_thread(save, log, batch), 5)
            report = await passing
        assert (report.months, count(log, "logger_events")) == ([], 18)
        assert "a" not in run_ids(log)

    async def test_two_loggers_make_a_new_month_at_once(self, log: Database, postgres_url: str) -> None:
        with empty_log(postgres_url) as other:
            batches = [whole_run(f"r-{number}", -31 * (number // 2)) for number in range(8)]
            await asyncio.gather(
                *(asyncio.to_thread(save, (log, other)[at % 2], batch) for at, batch in enumerate(batches))
            )
        assert count(log, "logger_events") == 24
        assert log.read_now(partitions) == ["2026-11", "2026-12", "2027-01", "2027-02"]

    async def test_a_month_that_was_rolled_back_is_made_again(self, log: Database) -> None:
        first = whole_run("a", 0)

        def work(conn: Any) -> None:
            from midwatch_services.logger import store

            for one in first:
                store.save(conn, [one])
            raise RuntimeError("undone")

        with pytest.raises(RuntimeError, match="undone"):
            log.write_now(work)
        save(log, first)
        assert count(log, "logger_events") == 3

    async def test_a_dropped_month_comes_back_where_it_is_needed(self, log: Database) -> None:
        save(log, [*whole_run("a", 500), *whole_run("new", 0)])
        await sweep(log)
        save(log, whole_run("b", 500))
        assert (log.read_now(partitions), run_ids(log)) == (["2025-07", "2026-11"], ["b", "new"])
