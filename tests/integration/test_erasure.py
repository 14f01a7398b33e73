"""The erasure of one customer, with every service and a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from erasure_helpers import (
    CUSTOMER,
    PLANTED,
    TICKET,
    Services,
    caught_up,
    in_files,
    in_streams,
    plant,
    plant_all,
    plant_decisions,
    say,
    tell_of_it,
)
from helpers import eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.erasure import ErasureRequested
from midwatch.contracts.governance import HoldPlaced
from midwatch.errors import Temporary
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch.runtime.topology import ERASERS
from midwatch_services.drift import app as drift
from midwatch_services.logger import store as log
from midwatch_services.logger.erasure import store
from midwatch_services.logger.erasure.proof import digest, waits_for
from midwatch_services.logger.evidence import chain, chain_store
from midwatch_services.logger.evidence.leaf import leaf_hash

ALL = (subjects.LOGGER, *ERASERS)
TELLING = (subjects.DRIFT, subjects.DIGEST)  # of what the log has
ID = "er-0123456789ab"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_LOOK", 0.05)


@pytest.fixture
async def services(settings: Settings, js: JetStreamContext) -> AsyncIterator[Services]:
    some = Services(settings)
    yield some
    await some.stop()


def open_log(settings: Settings) -> Database:
    return Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER)


async def ask(js: JetStreamContext, **what: Any) -> None:
    data = ErasureRequested(erasure_id=ID, by="dpo", reason="asked for by letter", **what)
    await say(js, "erasure", "requested", data, agent="_fleet")


async def state(settings: Settings) -> store.Work | None:
    database = open_log(settings)
    try:
        found = await database.read(lambda conn: store.read(conn, ID))
        return found[0] if found else None
    finally:
        await asyncio.to_thread(database.close)


async def done(settings: Settings) -> store.Work:
    async def is_done() -> store.Work | None:
        found = await state(settings)
        return found if found and found.phase == "done" else None

    found: store.Work = await eventually(is_done, within=40)
    return found


async def test_no_planted_word_is_left_anywhere(
    settings: Settings, js: JetStreamContext, services: Services, tmp_path: Path
) -> None:
    await services.start(*(name for name in ALL if name not in TELLING))
    await plant(js)
    await plant(js, "r-shadow", mode="shadow")
    await plant(js, "r-replay", mode="replay")
    await publish(js, "started", input="plantinput", run_id="r-other", ticket=TICKET, agent="second", at=utc_now())
    await publish(js, "started", input="hello", run_id="r-kept", customer="cust-2", ticket="T-2", at=utc_now())
    await caught_up(js)
    await plant_decisions(js)
    await caught_up(js)
    await tell_of_it(js, services)
    await eventually(lambda: "data/drift.db-wal: plantsaid" in in_files(settings.home))
    standing = await in_streams(js)
    assert {word for word in PLANTED if not any(word in one for one in standing)} == {"plantlate"}
    assert {one.split(":")[0] for one in in_files(settings.home)} >= {
        f"data/{name}.db-wal" for name in ("cost_watchdog", "digest", "drift", "kill_switch", "logger", "pager")
    }

    await ask(js, customer=CUSTOMER)
    work = await done(settings)

    assert await in_streams(js) == []
    assert in_files(settings.home) == []
    # A purge of a bucket's key is not written over: the server drops it when it next compacts that file.
    kept_by_server = {"jetstream/jetstream/$G/streams/KV_MIDWATCH_SWITCH/msgs/1.blk: plantswitch"}
    assert set(in_files(tmp_path / "nats")) <= kept_by_server
    await services.stop()
    assert in_files(settings.home) == []
    assert work.proof is not None
    assert work.proof["runs"] == [["desk", "r-1"], ["desk", "r-replay"], ["desk", "r-shadow"], ["second", "r-other"]]
    assert len(work.proof["events"]) == 19
    assert work.proof["alerts"]
    database = open_log(settings)
    kept = database.read_now(lambda conn: log.read_events(conn, "desk", "r-kept"))
    database.close()
    assert kept[0]["data"]["input"] == "hello"
    assert work.proof["confirmed"]["digest"] == {"digests": 4}
    assert work.proof["confirmed"]["drift"] == {"runs": 3}  # the fourth has no end


async def test_the_chain_and_its_leaves_are_whole_afterwards(
    settings: Settings, js: JetStreamContext, services: Services
) -> None:
    await services.start(*ALL)
    await plant(js)
    await caught_up(js)
    await ask(js, ticket=TICKET)
    work = await done(settings)

    assert work.proof is not None
    database = open_log(settings)

    def read(conn: Connection) -> tuple[list[chain.Block], list[Any]]:
        rows = conn.exec_driver_sql("SELECT * FROM logger_events ORDER BY place").all()
        return list(chain_store.blocks(conn, "desk")), list(rows)

    blocks, rows = database.read_now(read)
    database.close()
    notes = [msgspec.json.decode(block.note) for block in blocks if block.kind == "erasure"]
    assert list(chain.check(blocks)) == []
    assert notes[0]["erasure"] == notes[-1]["erasure"] == ID
    assert notes[0]["places"] == [row.place for row in rows]
    assert notes[-1]["proof"] == digest(work.proof)
    for row in rows:
        blank = msgspec.json.decode(row.body)
        assert blank["erased"] == ID
        content = bytes.fromhex(blank["content"])
        assert row.leaf == leaf_hash(
            row.agent, row.id, row.run_id, row.event, row.seq, row.time, row.stored_at, row.place, row.mode,
            row.version, content,
        )  # fmt: skip
        assert (row.salt, row.ticket, row.note) == (None, None, None)


async def test_what_comes_later_of_an_erased_run_is_erased_when_it_comes(
    settings: Settings, js: JetStreamContext, services: Services, tmp_path: Path
) -> None:
    await services.start(*ALL)
    await plant(js)
    await caught_up(js)
    await ask(js, customer=CUSTOMER)
    first = await done(settings)

    again = {"run_id": "r-1", "ticket": TICKET, "at": utc_now(), "session": "plantlate"}
    await publish(js, "said", by="customer", text="plantlate", seq=9, **again)
    await publish(js, "handed_off", to="human", reason="plantlate", seq=10, key="agent.desk", **again)
    await publish(js, "started", input="a new one", customer=CUSTOMER, run_id="r-new", at=utc_now())

    async def is_done_again() -> bool:
        found = await state(settings)
        assert found is not None
        return found.phase == "done" and found.proof is not None and len(found.proof["events"]) == 8

    await eventually(is_done_again, within=40)
    found = await state(settings)
    assert found is not None
    assert found.done_at > first.done_at  # type: ignore[operator]
    assert not [one for one in await in_streams(js) if "r-new" not in one and "started" not in one]
    assert not [one for one in in_files(settings.home, "plantlate") if "zanzibar" not in one]
    database = open_log(settings)
    new = database.read_now(lambda conn: log.read_runs(conn, run_id="r-new"))
    database.close()
    assert new[0]["customer"] == CUSTOMER  # an erasure reaches what there is until then


async def test_a_service_that_was_down_erases_when_it_is_back_and_is_named_until_then(
    settings: Settings, js: JetStreamContext, services: Services
) -> None:
    await services.start(*ALL)
    await plant_all(js)
    await services.stop(subjects.PAGER, subjects.REVIEWER_SAMPLER)
    await ask(js, customer=CUSTOMER)

    async def waits() -> bool:
        database = open_log(settings)
        parts = await database.read(lambda conn: store.parts(conn, ID))
        await asyncio.to_thread(database.close)
        return bool(parts) and waits_for(parts, ERASERS) == [subjects.PAGER, subjects.REVIEWER_SAMPLER]

    await eventually(waits, within=30)
    found = await state(settings)
    assert found is not None
    assert found.phase == "telling"
    await services.start(subjects.PAGER, subjects.REVIEWER_SAMPLER)
    await done(settings)
    assert await in_streams(js) == []
    assert in_files(settings.home) == []


async def test_a_service_that_is_behind_erases_once_it_has_read_on_and_can_be_rebuilt_from_the_stream(
    settings: Settings, js: JetStreamContext, services: Services
) -> None:
    others = [name for name in ALL if name != subjects.COST_WATCHDOG]
    await services.start(*others)
    await publish(js, "started", input="first", run_id="r-a", at=utc_now())
    await plant(js)
    await publish(js, "started", input="last", run_id="r-z", at=utc_now())
    await ask(js, customer=CUSTOMER)
    await services.start(subjects.COST_WATCHDOG)
    await done(settings)
    await caught_up(js)

    async def watched() -> set[str]:
        database = Database(settings.database_for(subjects.COST_WATCHDOG))
        rows = await database.read(
            lambda conn: conn.exec_driver_sql("SELECT key FROM cost_watchdog_runs").scalars().all()
        )
        await asyncio.to_thread(database.close)
        return set(rows)

    assert await watched() == {"live/desk/r-a", "live/desk/r-z"}
    await services.stop(subjects.COST_WATCHDOG)
    for path in (settings.home / "data").glob("cost_watchdog.db*"):
        path.unlink()
    await services.start(subjects.COST_WATCHDOG)
    assert await watched() == {"live/desk/r-a", "live/desk/r-z"}
    await publish(js, "finished", resolution="resolved", run_id="r-z", seq=1, at=utc_now())
    await caught_up(js)


async def test_what_a_legal_hold_keeps_stays_and_is_named(
    settings: Settings, js: JetStreamContext, services: Services
) -> None:
    await services.start(*ALL)
    await plant(js)
    await plant(js, "r-2", ticket="T-free")
    hold = HoldPlaced(hold_id="hold-1", by="legal", reason="claim", run_id="r-1", agent="desk")
    await say(js, "hold", "placed", hold, agent="_fleet")
    await caught_up(js)
    await ask(js, customer=CUSTOMER)
    work = await done(settings)

    assert work.proof is not None
    assert work.proof["runs"] == [["desk", "r-2"]]
    assert work.proof["outstanding"][0] == "the run desk/r-1 by hold-1 is kept, which wins over an erasure"
    database = open_log(settings)
    kept = database.read_now(lambda conn: log.read_events(conn, "desk", "r-1"))
    database.close()
    assert kept[0]["data"]["input"] == "plantinput"


POINTS = (
    "erasure.told", "erasure.erased", "erasure.scrubbed", "erasure.blanking", "erasure.telling",
    "erasure.closing", "erasure.scrubbing",
)  # fmt: skip


@pytest.mark.chaos
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_at_any_step_leaves_nothing_behind(
    settings: Settings, js: JetStreamContext, services: Services, point: str
) -> None:
    await services.start(*ALL)
    await plant_all(js)
    reached = []

    def crash(name: str) -> None:
        if name == point and not reached:
            reached.append(name)
            raise Temporary("the process died here")

    faults.set_hook(crash)
    try:
        await ask(js, customer=CUSTOMER)
        work = await done(settings)
    finally:
        faults.set_hook(None)
    assert reached == [point]
    assert await in_streams(js) == []
    assert in_files(settings.home) == []
    assert work.proof is not None
    assert len(work.proof["events"]) == 12


@pytest.mark.postgres
async def test_nothing_is_left_in_postgresql(
    nats_server: NatsServer, js: JetStreamContext, tmp_path: Path, postgres_url: str
) -> None:
    settings = Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=postgres_url)
    services = Services(settings)
    await services.start(*(name for name in ALL if name not in TELLING))
    try:
        await plant_all(js)
        await publish(js, "started", input="plantinput", run_id="r-other", ticket=TICKET, agent="second", at=utc_now())
        await caught_up(js)
        await tell_of_it(js, services)
        await eventually(
            lambda: {"digest_written: plantinput", "drift_facts: plantsaid"} <= set(in_postgres(postgres_url))
        )
        await ask(js, customer=CUSTOMER)
        await done(settings)
        assert await in_streams(js) == []
        assert in_postgres(postgres_url) == []
    finally:
        await services.stop()


def in_postgres(url: str) -> list[str]:
    """Rows of any table in which a planted word stands, as text or as bytes."""
    found = []
    with psycopg.connect(url) as conn:
        names = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            for (row,) in conn.execute(f'SELECT t::text FROM "{name}" t').fetchall():
                text = row.lower()
                found += [f"{name}: {word}" for word in PLANTED if any(one in text for one in _forms(word))]
    return found


def _forms(word: str) -> tuple[str, ...]:
    """The word as text in small letters, and as bytes; a digest's quotation begins with a capital."""
    return word, word.encode().hex(), word.capitalize().encode().hex()
