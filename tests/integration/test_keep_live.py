"""A log that is removed from, exported and imported while a real logger goes on: nothing of it is lost or refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import eventually
from kept import NOW, count, run_ids, save, whole_run
from logged import publish
from midwatch.contracts import subjects
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store
from midwatch_services.logger.app import SERVICE
from midwatch_services.logger.evidence.export import opened
from midwatch_services.logger.evidence.source import Tables
from midwatch_services.logger.evidence.verify import verify
from midwatch_services.logger.keeping.policy import Keeping
from midwatch_services.logger.keeping.sweep import Sweep
from midwatch_services.logger.transfer.bring_back import Import
from midwatch_services.logger.transfer.check import first_problem
from midwatch_services.logger.transfer.export import export
from midwatch_services.logger.transfer.layout import Filter, read_manifest

pytestmark = pytest.mark.chaos

LIVE = 300  # events


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def log_settings(request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    return Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=url)


@pytest.fixture
async def log(log_settings: Settings) -> AsyncIterator[Database]:
    """The log beside the running logger, as a command has it."""
    url = log_settings.database_for(subjects.LOGGER)
    migrate(url, subjects.LOGGER)
    database = Database(url, name=subjects.LOGGER)
    yield database
    database.close()


@contextlib.asynccontextmanager
async def logger(settings: Settings) -> AsyncIterator[None]:
    running = asyncio.Event()
    task = asyncio.create_task(run_services([SERVICE], settings, started=lambda _: running.set(), restart=False))
    await asyncio.wait_for(running.wait(), 20)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def live(js: JetStreamContext, run_id: str, events: int = LIVE) -> None:
    """Events of a run, one after another, with the server's time."""
    await publish(js, "started", run_id=run_id, input="Where is it?", at=utc_now())
    for seq in range(1, events):
        await publish(js, "said", run_id=run_id, seq=seq, by="agent", text="x" * 500, at=utc_now())


async def logged(log: Database, run_id: str, events: int = LIVE) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        runs = await log.read(lambda conn: store.read_runs(conn, run_id=run_id))
        return next((run for run in runs if run["events"] == events), None)

    run: dict[str, Any] = await eventually(found, within=20)
    return run


async def sealed(log: Database) -> None:
    """Waits until the sequencer has chained all of it, and finds nothing wrong with it."""

    def work(conn: Any) -> Any:
        report = verify(Tables(conn), None)
        assert [finding.text for finding in report.findings] == []
        return report.unsealed == 0

    await eventually(lambda: log.read(work), within=20)


def old_runs(log: Database, runs: int) -> None:
    days = (utc_now() - NOW).total_seconds() / 86_400
    for number in range(runs):
        save(log, whole_run(f"old-{number}", 450 - days, agent="old-desk", events=20))


async def test_the_logger_goes_on_while_a_big_removal_runs(
    js: JetStreamContext, log_settings: Settings, log: Database
) -> None:
    await asyncio.to_thread(old_runs, log, 60)
    async with logger(log_settings):
        await live(js, "first", 3)
        await logged(log, "first", 3)
        small = Keeping(events=20, runs=1)  # so that it lasts
        sweep = Sweep(log, lambda _: timedelta(days=400), keeping=small)
        report, _ = await asyncio.gather(sweep.run(), live(js, "meanwhile"))
        await logged(log, "meanwhile")
        assert report.gone["old-desk"].runs == 60
        assert run_ids(log) == ["first", "meanwhile"]
        assert count(log, "logger_events") == LIVE + 3
        assert (await js.stream_info(subjects.DEAD)).state.messages == 0
        await sealed(log)


async def test_an_export_and_an_import_run_beside_the_logger(
    js: JetStreamContext, log_settings: Settings, log: Database, tmp_path: Path
) -> None:
    async with logger(log_settings):
        await live(js, "before", 40)
        await live(js, "lost", 40)
        before = await logged(log, "lost", 40)
        await sealed(log)

        def write() -> Any:
            return export(log, tmp_path / "out", Filter(), "jsonl", by="sam", now=utc_now())

        manifest, _ = await asyncio.gather(asyncio.to_thread(write), live(js, "during the export"))
        assert await asyncio.to_thread(first_problem, tmp_path / "out", manifest) is None
        assert manifest.counts["runs"] >= 2
        for table in ("logger_events", "logger_runs"):
            await log.write(
                lambda conn, table=table: conn.exec_driver_sql(f"DELETE FROM {table} WHERE run_id = 'lost'")  # type: ignore[misc]
            )
        bring = Import(log, tmp_path / "out", read_manifest(tmp_path / "out"), utc_now())
        report, _ = await asyncio.gather(asyncio.to_thread(bring.run), live(js, "during the import"))
        assert (report.runs, report.events) == (1, 40)
        assert await logged(log, "lost", 40) == before
        for run_id in ("during the export", "during the import"):
            await logged(log, run_id)
        await sealed(log)


async def test_an_import_into_an_empty_log_is_proved_there_and_goes_on(
    js: JetStreamContext, log_settings: Settings, log: Database, tmp_path: Path
) -> None:
    async with logger(log_settings):
        await live(js, "r-1", 40)
        await logged(log, "r-1", 40)
        await sealed(log)
    for name, wanted in (("out", Filter()), ("part", Filter(run_id="r-1"))):
        export(log, tmp_path / name, wanted, "jsonl", by="sam", now=utc_now())
        with opened(tmp_path / name) as (exported, unread):
            assert [finding.text for finding in [*verify(exported, None).findings, *unread]] == []
    elsewhere = log_settings.model_copy(update={"home": tmp_path / "elsewhere", "database_url": None})
    url = elsewhere.database_for(subjects.LOGGER)
    Database(url).close()
    migrate(url, subjects.LOGGER)
    other = Database(url, name=subjects.LOGGER)
    try:
        Import(other, tmp_path / "out", read_manifest(tmp_path / "out"), utc_now()).run()
        await sealed(other)
        async with logger(elsewhere):  # the same stream, from where the other log had come
            await live(js, "r-2", 40)
            await logged(other, "r-2", 40)
            await sealed(other)
        assert run_ids(other) == ["r-1", "r-2"]
    finally:
        other.close()
