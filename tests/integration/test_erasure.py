"""The erasure of one customer, with every service and a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from erasure_helpers import CUSTOMER, PLANTED, TICKET, Services, caught_up, in_files, in_streams, plant, plant_decisions, say
from helpers import eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.erasure import ErasureRequested
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store as log
from midwatch_services.logger.erasure import store
from midwatch_services.logger.erasure.proof import digest

ALL = (
    subjects.LOGGER, subjects.COST_WATCHDOG, subjects.KILL_SWITCH, subjects.PAGER, subjects.REVIEWER_SAMPLER,
)  # fmt: skip
ID = "er-0123456789ab"


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
    await services.start(*ALL)
    await plant(js)
    await plant(js, "r-shadow", mode="shadow")
    await plant(js, "r-replay", mode="replay")
    await publish(js, "started", input="plantinput", run_id="r-other", ticket=TICKET, agent="second", at=utc_now())
    await publish(js, "started", input="hello", run_id="r-kept", customer="cust-2", ticket="T-2", at=utc_now())
    await caught_up(js)
    await plant_decisions(js)
    await caught_up(js)
    standing = await in_streams(js)
    assert {word for word in PLANTED if not any(word in one for one in standing)} == {"plantlate"}
    print(in_files(settings.home))
    print("NATSB", in_files(tmp_path / "nats"))

    await ask(js, customer=CUSTOMER)
    work = await done(settings)

    assert await in_streams(js) == []
    assert in_files(settings.home) == []
    print("NATS", in_files(tmp_path / "nats"))
    import msgspec
    print(msgspec.json.format(msgspec.json.encode(work.proof)).decode()[:3000])
    await services.stop()
    assert in_files(settings.home) == []
    assert work.proof is not None
    assert work.proof["runs"] == [["desk", "r-1"], ["desk", "r-replay"], ["desk", "r-shadow"], ["second", "r-other"]]
    assert len(work.proof["events"]) == 19
    database = open_log(settings)
    kept = database.read_now(lambda conn: log.read_events(conn, "desk", "r-kept"))
    database.close()
    assert kept[0]["data"]["input"] == "hello"
