"""Two loggers share a stream, and one dies between two steps: every event is sealed once, and the log is whole."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from helpers import all_read, eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.logger.evidence import (
    chain_store,
    checkpoint_file,
    checkpoint_store,
    keys,
    sequencer,
    source,
    verify,
)
from midwatch_services.logger.evidence.findings import Report
from midwatch_services.logger.places import place

pytestmark = pytest.mark.chaos

PROGRAM = """
from midwatch.runtime.service import run_services, run_until_signal
from midwatch.runtime.settings import Settings
from midwatch_services.logger.app import SERVICE
from midwatch_services.logger.evidence import notary, sequencer, sinks
sequencer.EVERY = notary.EVERY = sinks.EVERY = 0.1
run_until_signal(lambda: run_services([SERVICE], Settings(), restart=False))
"""


class Loggers:
    """Processes of the logger, each as `midwatch run logger` makes it, but quicker to tick."""

    def __init__(self, js: JetStreamContext, settings: Settings) -> None:
        self.js, self.settings = js, settings
        self.seq = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        url = settings.database_for("logger")
        migrate(url, "logger")
        self.database = Database(url, name="logger")

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        common: dict[str, Any] = {
            "NATS_URL": self.settings.url, "MIDWATCH_HOME": str(self.settings.home), "MIDWATCH_HTTP_PORT": "0",
            "MIDWATCH_DATABASE_URL": self.settings.database_url or "",
        }  # fmt: skip
        Path(self.settings.home).mkdir(exist_ok=True)
        with (Path(self.settings.home) / "logger.log").open("ab") as log:
            made = subprocess.Popen(
                [sys.executable, "-c", PROGRAM], env={**os.environ, **common, **environment}, stdout=log, stderr=log
            )
        self.processes.append(made)
        return made

    async def feed(self, count: int) -> None:
        agents = ("desk", "other")
        first, self.seq = self.seq, self.seq + count
        told = [(n, agents[n % 2]) for n in range(first, self.seq)]
        await asyncio.gather(*(publish(self.js, "said", seq=n, by="agent", text="x", agent=who) for n, who in told))

    async def sealed(self, stream: int = 1) -> None:
        """Waits until all of the stream is stored, acknowledged and sealed."""

        async def done() -> bool:
            read = await all_read(self.js, subjects.RUNS, subjects.LOGGER)
            last = (await self.js.stream_info(subjects.RUNS)).state.last_seq
            passed, waiting = self.database.read_now(_state)
            return read and passed >= place(stream, last) and not waiting

        await eventually(done, within=30)

    def check(self) -> Report:
        folder = Path(self.settings.home) / "evidence"
        path = folder / "checkpoints.jsonl"
        outside = verify.Outside("the file", checkpoint_file.as_it_is(path)) if path.exists() else None
        with self.database.engine.connect() as conn, conn.begin():
            source.snapshot(conn)
            return verify.verify(source.Tables(conn), keys.load_public(folder / "signing.pub"), outside)

    async def signed(self) -> None:
        """Waits until the file has a checkpoint of the newest heads."""

        def done() -> bool:
            return bool(self.check().checkpoints) and not self.database.read_now(_unsigned)

        await eventually(done, within=30)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        self.database.close()


def _state(conn: Connection) -> tuple[int, int]:
    return chain_store.cursor(conn, chain_store.SEQUENCER), sequencer.unsealed(conn)


def _unsigned(conn: Connection) -> bool:
    return bool(checkpoint_store.moved(conn))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def loggers(
    request: pytest.FixtureRequest, js: JetStreamContext, nats_server: NatsServer, tmp_path: Path
) -> Any:  # a generator
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Loggers(js, Settings(home=tmp_path / "home", nats_url=nats_server.url, http_port=0, database_url=url))
    yield made
    made.stop()


POINTS = (
    "logger.inserted", "logger.folded", "delivery.handled", "delivery.acked:2", "sequencer.read",
    "sequencer.appended", "sequencer.sealed:2", "notary.signed", "notary.kept", "file.appended", "nats.taken",
)  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
async def test_a_dead_process_leaves_every_event_sealed_once(loggers: Loggers, point: str) -> None:
    js = loggers.js
    declared = await js.consumer_info(subjects.RUNS, subjects.LOGGER)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(ack_wait=1))
    loggers.start()
    doomed = loggers.start(MIDWATCH_FAULT=point)
    await loggers.feed(60)

    async def dead() -> bool:
        await loggers.feed(2)
        return doomed.poll() is not None

    await eventually(dead, within=30)
    assert doomed.returncode == 137
    await loggers.sealed()
    await loggers.signed()
    report = loggers.check()
    assert (report.findings, report.sealed, report.unsealed) == ([], loggers.seq, 0)


async def test_a_consumer_made_anew_reads_all_again_and_nothing_is_sealed_twice(loggers: Loggers) -> None:
    js = loggers.js
    loggers.start()
    await loggers.feed(50)
    await loggers.sealed()
    await js.delete_consumer(subjects.RUNS, subjects.LOGGER)
    await topology.apply(js, loggers.settings)
    await loggers.feed(50)
    await loggers.sealed()
    report = loggers.check()
    assert (report.findings, report.sealed) == ([], 100)


async def test_a_stream_made_anew_goes_on_in_the_same_chain(loggers: Loggers) -> None:
    js = loggers.js
    loggers.start()
    await loggers.feed(50)
    await loggers.sealed()
    await js.delete_stream(subjects.RUNS)
    await topology.apply(js, loggers.settings)
    await loggers.feed(30)
    await loggers.sealed(stream=2)
    report = loggers.check()
    assert (report.findings, report.sealed) == ([], 80)


async def test_what_comes_again_into_a_restored_database_is_sealed_at_the_end(loggers: Loggers) -> None:
    js = loggers.js
    loggers.start()
    await loggers.feed(50)
    await loggers.sealed()
    loggers.database.write_now(
        # As if the backup were older than these: rows gone, and the chain past them.
        lambda conn: conn.exec_driver_sql(f"UPDATE logger_cursors SET place = {place(1, 200)} WHERE name = 'sequencer'")
    )
    await loggers.feed(40)
    await eventually(lambda: _events(loggers) == 90 and loggers.database.read_now(_state)[1] == 0, within=20)
    report = loggers.check()
    assert (report.findings, report.sealed) == ([], 90)
    assert (await js.stream_info(subjects.RUNS)).state.messages == 90


def _events(loggers: Loggers) -> int:
    return int(
        loggers.database.read_now(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM logger_events").scalar()) or 0
    )
