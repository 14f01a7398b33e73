"""Armed, continuously: an agent whose instances would not all obey raises one page, and its end resolves it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from kill_switch_helpers import said
from midwatch.contracts import subjects
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.outbox import Outbox
from midwatch_services.kill_switch.alarms import Alarms, open_alarms
from midwatch_services.kill_switch.store import PREFIX

T0 = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
LATER = T0 + timedelta(minutes=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/alarms.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    migrate(url, subjects.KILL_SWITCH)
    opened = Database(url, name=subjects.KILL_SWITCH)
    yield opened
    opened.close()


async def test_an_alert_is_raised_once_counted_while_it_is_open_and_resolved_once(
    js: JetStreamContext, database: Database
) -> None:
    outbox = Outbox(database, PREFIX, js)
    alarms = Alarms(outbox)
    what = {"dedupe_key": "k", "rule": "not_armed", "severity": "page", "title": "t", "agent": "desk"}
    answers = [
        await database.write(work)
        for work in (
            lambda conn: alarms.raise_(conn, **what, now=T0),
            lambda conn: alarms.raise_(conn, **what, now=LATER),
            lambda conn: alarms.resolve(conn, "k", reason="all is well", now=LATER),
            lambda conn: alarms.resolve(conn, "k", reason="all is well", now=LATER),
        )
    ]
    assert answers == [True, False, True, False]
    await outbox.drain()
    (raised, alert), (resolved, end) = await said(js, "alert")
    assert (raised, alert.rule, alert.severity, alert.title, alert.agent) == (
        "raised", "not_armed", "page", "t", "desk",
    )  # fmt: skip
    assert (resolved, end.alert_id, end.reason, end.repeats) == ("resolved", alert.alert_id, "all is well", 1)


async def test_an_alert_that_comes_again_after_its_end_is_another(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, PREFIX, js)
    alarms = Alarms(outbox)
    what = {"dedupe_key": "k", "rule": "not_armed", "severity": "page", "title": "t", "agent": subjects.FLEET}
    await database.write(lambda conn: alarms.raise_(conn, **what, now=T0))
    await database.write(lambda conn: alarms.resolve(conn, "k", reason="over", now=T0))
    await database.write(lambda conn: alarms.raise_(conn, **what, now=LATER))
    await outbox.drain()
    first, _, second = [data for _, data in await said(js, "alert")]
    assert first.alert_id != second.alert_id
    assert [alarm.alert_id for alarm in await database.read(lambda conn: open_alarms(conn, "not_armed"))] == [
        second.alert_id
    ]
