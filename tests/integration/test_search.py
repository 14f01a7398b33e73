"""Runs found by what they are and by what was said in them, on both databases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from logged import NOON, alert, received
from midwatch.contracts import codec
from midwatch.contracts.reviews import ReviewAgreed, ReviewJudged, ReviewSampled
from midwatch.runtime import faults
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.logger import daily, unread
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.reading_store import Wanted, find, find_callers
from midwatch_services.logger.search import index_store, indexer
from midwatch_services.logger.search.grammar import BadQuestion
from midwatch_services.logger.search.reading import Facts, Reading, read
from search_helpers import LATER, Log, called, finished, run, spent, started


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    url = Settings(database_url=url).database_for("logger")
    await asyncio.to_thread(migrate, url, "logger")
    database = Database(url, name="logger")
    log = Log(database)
    yield log
    log.index.close()
    database.close()


async def three_runs(log: Log) -> None:
    """`r-3` is the newest. All are read."""
    waits = [("said", {"by": "agent", "text": "One moment"})] * 9
    await log.save(
        *run("r-1", started("Where is my gift card?", customer="c-1"), called("get_order"), spent("0.10"),
             finished("resolved"), version="1", ticket="T-1"),
        *run("r-2", started("Refund the gift, cancel the card"), called("refund", arguments={"order": "A-1001"}),
             spent("0.90"), *waits, finished("failed"), minutes=10, version="2"),
        *run("r-3", started("Refund my café order"), called("refund"), called("get_order"),
             ("model_called", {"model": "nobody-knows-it", "usage": {"input_tokens": 9}}), minutes=20, agent="other",
             mode="shadow", version="2"),
    )  # fmt: skip
    drawn = {"rate": 1, "draw": 0, "day": "2026-11-22", "key_hash": "h", "agent": "desk"}
    await log.decided(
        alert("raised", run_id="r-2", rule="budget_run", at=NOON),
        codec.envelope("review", "sampled", ReviewSampled(run_id="r-1", **drawn), source="/x", time=NOON),
        codec.envelope("review", "sampled", ReviewSampled(run_id="r-2", **drawn), source="/x", time=NOON),
        codec.envelope(
            "review", "agreed", ReviewAgreed(run_id="r-2", agent="desk", verdict="fail", by=["anna"]), source="/x",
            time=NOON,
        ),
        codec.envelope(
            "review", "judged", ReviewJudged(run_id="r-1", agent="desk", verdict="fail", by="anna"), source="/x",
            time=NOON,
        ),
    )  # fmt: skip
    assert await log.read() == 3


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["r-3", "r-2", "r-1"]),
    ({"agent": "desk"}, ["r-2", "r-1"]),
    ({"version": "2"}, ["r-3", "r-2"]),
    ({"ticket": "T-1"}, ["r-1"]),
    ({"customer": "c-1"}, ["r-1"]),
    ({"resolution": "failed"}, ["r-2"]),
    ({"resolution": "open"}, ["r-3"]),
    ({"mode": "shadow"}, ["r-3"]),
    ({"tool": "refund"}, ["r-3", "r-2"]),
    ({"tool": "REFUND"}, []),
    ({"cost_over": Decimal("0.10")}, ["r-2"]),
    ({"cost_over": Decimal("0.05"), "cost_under": Decimal("0.90")}, ["r-1"]),
    ({"cost_under": Decimal(5)}, ["r-2", "r-1"]),
    ({"slower_than": timedelta(seconds=5)}, ["r-2"]),
    ({"slower_than": timedelta(seconds=3)}, ["r-2"]),
    ({"slower_than": timedelta(seconds=2.9)}, ["r-2", "r-1"]),
    ({"alert": "budget_run"}, ["r-2"]),
    ({"alert": "any"}, ["r-2"]),
    ({"alert": "velocity"}, []),
    ({"verdict": "fail"}, ["r-2"]),
    ({"verdict": "waiting"}, ["r-1"]),
    ({"verdict": "any"}, ["r-2", "r-1"]),
    ({"since": text_of(NOON + timedelta(minutes=10))}, ["r-3", "r-2"]),
    ({"until": text_of(NOON + timedelta(minutes=10))}, ["r-1"]),
    ({"text": "gift", "until": text_of(NOON + timedelta(minutes=10))}, ["r-1"]),
    ({"text": "refund", "since": text_of(NOON + timedelta(minutes=11))}, ["r-3"]),
    ({"limit": 2}, ["r-3", "r-2"]),
    ({"mode": "live", "limit": 1}, ["r-2"]),
    ({"text": "gift"}, ["r-2", "r-1"]),
    ({"text": "Gift CARD"}, ["r-2", "r-1"]),
    ({"text": '"gift card"'}, ["r-1"]),
    ({"text": "cafe"}, ["r-3"]),
    ({"text": "A-1001"}, ["r-2"]),
    ({"text": "1001-A"}, []),
    ({"text": "can*"}, ["r-2"]),
    ({"text": "cance*"}, ["r-2"]),
    ({"text": '"my gift car"*'}, ["r-1"]),
    ({"text": "refund -gift"}, ["r-3"]),
    ({"text": "-refund"}, ["r-1"]),
    ({"text": "refund -cance*"}, ["r-3"]),
    ({"text": "gift nobody"}, []),
    ({"text": "gift", "ticket": "T-1"}, ["r-1"]),
    ({"tool": "get_order", "customer": "c-1"}, ["r-1"]),
    ({"text": "gift", "customer": "c-2"}, []),
    ({"text": "refund", "tool": "refund", "agent": "desk", "cost_over": Decimal("0.5"), "alert": "budget_run",
      "verdict": "fail", "resolution": "failed", "version": "2", "mode": "live"}, ["r-2"]),
    ({"text": "refund", "agent": "desk", "cost_over": Decimal(2)}, []),
]  # fmt: skip


async def test_each_filter_finds_what_it_says_the_newest_first(log: Log) -> None:
    await three_runs(log)
    assert [(wanted, await log.found(**wanted)) for wanted, _ in FILTERS] == FILTERS


async def test_what_is_not_read_yet_is_found_as_all_else(log: Log) -> None:
    await three_runs(log)
    await log.database.write(lambda conn: index_store.forget(conn, "desk", ["r-1", "r-2"]))
    touched = [("desk", one, text_of(NOON), True) for one in ("r-1", "r-2")]
    await log.database.write(lambda conn: index_store.touch(conn, touched))
    assert [(wanted, await log.found(**wanted)) for wanted, _ in FILTERS] == FILTERS


async def test_a_run_that_goes_on_is_found_by_what_it_says_and_calls_now(log: Log) -> None:
    await three_runs(log)
    said = ("said", {"by": "customer", "text": "I want the manager"})
    goes_on = run("r-1", *[started("x")] * 9, said, called("void_refund"), version="1", ticket="T-1")
    await log.save(*goes_on[9:])
    for _ in range(2):
        assert await log.found(text="manager gift") == ["r-1"]
        assert await log.found(text="gift -manager") == ["r-2"]
        assert await log.found(tool="void_refund") == ["r-1"]
        assert await log.found(text="manager", tool="void_refund", ticket="T-1") == ["r-1"]
        assert await log.found(text="manager", tool="refund") == []
        await log.index.note(2**60)


HOSTILE = [
    "' OR 1=1 --", '"; DROP TABLE logger_readings; --', "a AND OR NOT", "NEAR(a b, 2)", "words : x", "^a", "a + b",
    "{a b} : c", "'a' & !'b' | ('c' <-> 'd'):*", "\\' \\\\ %s :text", "(((((((", '"""', "gift\x00card", "§ §a0",
    "* * *a* **", "\ud800", "🙂 gift", "abc:*", "logger_words:delete", ")" * 500, "--", "-" * 99 + "gift", "x" * 9999,
]  # fmt: skip


async def test_no_question_can_break_or_change_the_index(log: Log) -> None:
    await three_runs(log)
    for text in HOSTILE:
        with contextlib.suppress(BadQuestion):
            assert set(await log.found(text=text)) <= {"r-1", "r-2", "r-3"}
    assert await log.found(text="gift") == ["r-2", "r-1"]


async def test_a_run_is_read_when_it_ended_or_rests_and_again_when_more_comes(log: Log) -> None:
    await log.save(*run("r-1", started("Where is my parcel?")))
    assert await log.read(NOON + timedelta(seconds=29)) == 0
    assert await log.count("logger_readings") == 0
    assert await log.read(NOON + timedelta(seconds=31)) == 1
    assert await log.found(text="parcel") == ["r-1"]
    late = run("r-1", started("x"), ("said", {"by": "customer", "text": "It is the red one"}), finished("resolved"))
    await log.save(*late[1:])
    assert await log.read(NOON) == 1
    assert await log.found(text="parcel red", resolution="resolved") == ["r-1"]
    assert await log.read() == 0
    assert await log.count("logger_readings") == 1


async def test_a_run_that_never_rests_is_read_after_five_minutes(log: Log) -> None:
    for minute in range(6):
        await log.save(*run("r-1", ("said", {"by": "agent", "text": f"word{minute}"}), minutes=minute))
        await log.index.note(2**60)
    assert await log.read(NOON + timedelta(minutes=5)) == 1
    assert await log.found(text="word5") == ["r-1"]


async def test_an_event_of_before_the_first_moves_the_run_in_time(log: Log) -> None:
    await three_runs(log)
    await log.save(*run("r-3", started("gift"), minutes=-60, agent="other", mode="shadow", version="2"))
    await log.read()
    assert await log.found(text="gift") == ["r-2", "r-1", "r-3"]
    assert await log.found(mode="shadow", until=text_of(NOON)) == ["r-3"]


async def test_an_event_stored_behind_the_cursor_is_read_too(log: Log) -> None:
    await three_runs(log)
    log._place = 0
    behind = received("said", run_id="r-1", seq=9, by="agent", text="a latecomer")
    await log.save(behind)
    assert await log.read() == 1
    assert await log.found(text="latecomer") == ["r-1"]


async def test_alerts_and_verdicts_that_come_later_are_found(log: Log) -> None:
    await three_runs(log)
    await log.decided(alert("raised", alert_id="a-2", run_id="r-1", rule="velocity", at=NOON))
    assert await log.found(alert="velocity") == ["r-1"]
    await log.read()
    assert await log.found(alert="velocity", text="gift") == ["r-1"]


async def test_what_is_forgotten_is_found_no_more_and_its_words_are_gone(log: Log) -> None:
    await three_runs(log)
    await log.database.write(lambda conn: index_store.forget(conn, "desk", ["r-1", "r-2", "never"]))
    assert await log.found(text="gift") == []
    assert await log.found(text="refund") == ["r-3"]
    while await log.index.sweep():
        pass
    assert await log.count("logger_readings") == 1
    if log.database.dialect == "sqlite":
        held = "SELECT count(*) FROM logger_words_data WHERE instr(block, 'gift') OR instr(block, '1001')"
        assert await log.database.read(lambda conn: conn.exec_driver_sql(held).scalar_one()) == 0


async def test_an_erased_event_leaves_its_words_out_when_the_run_is_read_again(log: Log) -> None:
    await three_runs(log)

    def erase(conn: sa.Connection) -> None:
        body = '{"erased":"e-1","content":"00"}'
        conn.execute(
            sa.text("UPDATE logger_events SET body = :body WHERE run_id = 'r-1' AND event = 'started'"), {"body": body}
        )
        index_store.forget(conn, "desk", ["r-1"])
        index_store.touch(conn, [("desk", "r-1", text_of(NOON), True)])

    await log.database.write(erase)
    await log.read()
    assert await log.found(text="gift") == ["r-2"]
    assert await log.found(tool="get_order") == ["r-3", "r-1"]


async def test_a_run_that_left_the_log_is_forgotten_when_it_is_read(log: Log) -> None:
    await three_runs(log)

    def remove(conn: sa.Connection) -> None:
        conn.exec_driver_sql("DELETE FROM logger_runs WHERE run_id = 'r-1'")
        index_store.touch(conn, [("desk", "r-1", text_of(NOON), True)])

    await log.database.write(remove)
    assert await log.read() == 1
    assert (await log.count("logger_readings"), await log.count("logger_unread")) == (2, 0)


@pytest.mark.parametrize("point", ["index.moved", "index.noted", "index.looked", "index.saving", "index.saved"])
async def test_a_crash_between_two_steps_loses_nothing_and_doubles_nothing(log: Log, point: str) -> None:
    class Crash(Exception):
        pass

    def hook(reached: str) -> None:
        if reached == point:
            raise Crash

    await log.save(*run("r-1", started("gift"), finished("resolved")), *run("r-2", started("card"), finished("failed")))
    faults.set_hook(hook)
    try:
        with pytest.raises(Crash):
            await log.read()
    finally:
        faults.set_hook(None)
    await log.read()
    assert (await log.found(text="gift"), await log.found(text="card")) == (["r-1"], ["r-2"])
    assert (await log.count("logger_readings"), await log.count("logger_unread")) == (2, 0)


async def test_several_processes_read_each_run_once(log: Log) -> None:
    for at in range(60):
        await log.save(*run(f"r-{at}", started(f"gift number{at}"), finished("resolved"), minutes=at))
    other = Log(log.database)
    await asyncio.gather(log.read(), other.read(), log.read())
    await log.read()
    other.index.close()
    assert len(await log.found(text="gift")) == 60
    assert (await log.count("logger_readings"), await log.count("logger_unread")) == (60, 0)


async def test_a_reading_begun_before_more_came_does_not_hide_it(log: Log) -> None:
    await log.save(*run("r-1", started("gift"), finished("resolved")))
    await log.index.note(2**60)

    def late(reached: str) -> None:
        if reached == "index.looked":
            faults.set_hook(None)
            touched = [("desk", "r-1", text_of(NOON), True)]
            log.database.write_now(lambda conn: index_store.touch(conn, touched))

    faults.set_hook(late)
    await log.index.read(LATER)
    assert await log.count("logger_readings") == 0
    assert await log.read() == 1


async def test_where_more_is_new_than_one_question_looks_at_it_says_up_to_when_all_is_found(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**wanted: Any) -> tuple[list[str], str | None]:
        one = log.database.read_now(lambda conn: find(conn, Wanted(**wanted)))
        return [run["run_id"] for run in one.runs], one.whole_until

    await three_runs(log)
    for at in (4, 5, 6):
        await log.save(*run(f"r-{at}", started("gift"), called("refund"), called("refund"), minutes=10 * at))
    since = text_of(NOON + timedelta(minutes=40))
    for bound in ("CALLS", "EVENTS"):
        monkeypatch.setattr(unread, bound, 5)
    for _ in range(2):
        assert found(tool="refund") == (["r-6", "r-5", "r-3", "r-2"], since)
        assert found(text="gift") == (["r-6", "r-2", "r-1"], since)
        assert found(text="gift", limit=1) == (["r-6"], None)
        assert found(mode="live") == (["r-6", "r-5", "r-4", "r-2", "r-1"], None)
        await log.index.note(2**60)
    await log.read()
    assert found(text="gift") == (["r-6", "r-5", "r-4", "r-2", "r-1"], None)


async def test_runs_that_called_tools_since_are_given_whenever_they_began(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def callers(**wanted: Any) -> tuple[list[str], str]:
        runs, since = log.database.read_now(lambda conn: find_callers(conn, Wanted(**wanted), after))
        return [one["run_id"] for one in runs], since

    after = text_of(NOON + timedelta(minutes=15))
    await three_runs(log)
    assert callers() == (["r-3"], after)
    await log.save(*run("r-1", called("refund"), minutes=30))
    await log.save(*run("r-4", started("gift"), minutes=40))
    assert callers() == (["r-3", "r-1"], after)
    assert callers(mode="live") == (["r-1"], after)
    monkeypatch.setattr(daily, "_LATELY", 2)
    assert callers() == (["r-1"], text_of(NOON + timedelta(minutes=30)))


async def test_runs_of_one_moment_are_all_found(log: Log) -> None:
    for at in range(30):
        await log.save(received("finished", run_id=f"r-{at:02d}", resolution="resolved", output="gift"))
    await log.read()
    assert await log.found(text="gift") == [f"r-{at:02d}" for at in range(29, -1, -1)]


async def test_a_run_that_cannot_be_read_keeps_no_other_from_being_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_all_but_one(facts: Facts, events: Any) -> Reading:
        if facts.run_id == "r-2" and (events := list(events)):
            raise RecursionError
        return read(facts, events)

    monkeypatch.setattr(indexer, "read", read_all_but_one)
    await three_runs(log)
    assert await log.found(text="gift") == ["r-1"]
    assert await log.found(resolution="failed") == ["r-2"]


async def test_a_log_of_before_there_was_an_index_is_read_whole(postgres_url: str, tmp_path: Any) -> None:
    for url in (f"sqlite:///{tmp_path}/old.db", Settings(database_url=postgres_url).database_for("logger")):
        await asyncio.to_thread(migrate, url, "logger")
        database = Database(url, name="logger")
        log = Log(database)
        await three_runs(log)
        await database.write(_as_after_the_upgrade)
        assert await log.found(resolution="failed") == ["r-2"]
        assert await log.read() == 3
        assert await log.found(text="gift") == ["r-2", "r-1"]
        log.index.close()
        database.close()


def _as_after_the_upgrade(conn: sa.Connection) -> None:
    index_store.forget(conn, "desk", ["r-1", "r-2"])
    index_store.forget(conn, "other", ["r-3"])
    conn.exec_driver_sql("UPDATE logger_events SET place = 0")
    conn.exec_driver_sql(
        "INSERT INTO logger_unread (agent, run_id, since, touched, done, times) "
        "SELECT agent, run_id, last_at, last_at, 1, 1 FROM logger_runs"
    )
