"""The outbox: what was decided is said once, whatever ends in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy.engine import Connection

from helpers import all_read, eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.errors import Permanent, Temporary
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch.runtime.delivery import Received, RunReader
from midwatch.runtime.outbox import Outbox, Outgoing, create_outbox_tables

POINTS = (
    "delivery.received", "delivery.handled", "outbox.read", "outbox.published", "outbox.deleted", "delivery.drained",
    "delivery.acked",
)  # fmt: skip


class Crash(BaseException):
    """The process ends here."""


def said(id: str, **changes: Any) -> Outgoing:
    return Outgoing(**{"msg_id": id, "subject": "midwatch.alert.desk.raised", "body": id.encode(), **changes})


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/outbox.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    opened = Database(url, name="watch")
    await opened.write(lambda conn: create_outbox_tables(conn, "watch"))
    yield opened
    faults.set_hook(None)
    opened.close()


async def bodies(js: JetStreamContext, stream: str = subjects.GOVERNANCE) -> list[bytes]:
    info = await js.stream_info(stream)
    return [(await js.get_msg(stream, n)).data or b"" for n in range(1, info.state.last_seq + 1)]


async def test_what_was_added_is_published_in_order_and_leaves(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)
    await database.write(lambda conn: [outbox.add(conn, said(f"m{n:03d}")) for n in range(250)])
    assert await outbox.drain() == 250
    assert await bodies(js) == [f"m{n:03d}".encode() for n in range(250)]
    assert await outbox.drain() == 0


async def test_what_a_failed_transaction_added_is_never_said(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)

    def work(conn: Connection) -> None:
        outbox.add(conn, said("m1"))
        raise ValueError

    with pytest.raises(ValueError):
        await database.write(work)
    assert await outbox.drain() == 0
    assert await bodies(js) == []


async def test_an_identity_is_fresh_once(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)
    first = await database.write(lambda conn: outbox.fresh(conn, [("desk", "1"), ("desk", "2"), ("desk", "1")]))
    second = await database.write(lambda conn: outbox.fresh(conn, [("desk", "2"), ("other", "2")]))
    assert (first, second) == ({("desk", "1"), ("desk", "2")}, {("other", "2")})


async def test_a_forgotten_identity_is_fresh_again(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)
    await database.write(lambda conn: outbox.fresh(conn, [("desk", "1")]))
    assert await database.write(lambda conn: outbox.forget(conn, 0)) == 0
    assert await database.write(lambda conn: outbox.forget(conn, 2**40)) == 1
    assert await database.write(lambda conn: outbox.fresh(conn, [("desk", "1")])) == {("desk", "1")}


async def test_the_trace_goes_with_the_message(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)
    await database.write(lambda conn: outbox.add(conn, said("m1", traceparent="00-aa-bb-01")))
    await outbox.drain()
    headers = (await js.get_msg(subjects.GOVERNANCE, 1)).headers or {}
    assert (headers["Nats-Msg-Id"], headers["traceparent"]) == ("m1", "00-aa-bb-01")


async def test_a_row_that_is_not_acknowledged_stays_and_the_others_leave(
    js: JetStreamContext, database: Database
) -> None:
    outbox = Outbox(database, "watch", js)
    rows = [said("m1"), said("m2", subject="nobody.stores.this"), said("m3")]
    await database.write(lambda conn: [outbox.add(conn, row) for row in rows])
    with pytest.raises(Temporary, match="not acknowledged"):
        await outbox.drain()
    left = await database.read(lambda conn: list(conn.exec_driver_sql("SELECT msg_id FROM watch_outbox").scalars()))
    assert left == ["m2"]
    assert await bodies(js) == [b"m1", b"m3"]


async def test_other_kinds_go_to_their_sink_in_their_turn(js: JetStreamContext, database: Database) -> None:
    seen: list[tuple[str, int]] = []

    async def halt(row: Outgoing) -> None:
        seen.append((row.msg_id, len(await bodies(js))))

    outbox = Outbox(database, "watch", js, sinks={"halt_run": halt})
    rows = [said("m1"), said("h1", kind="halt_run"), said("m2"), said("h2", kind="halt_run")]
    await database.write(lambda conn: [outbox.add(conn, row) for row in rows])
    assert await outbox.drain() == 4
    assert seen == [("h1", 1), ("h2", 2)]


async def test_a_kind_without_a_sink_is_refused_when_it_is_added(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)
    with pytest.raises(ValueError, match="no sink takes 'halt_run'"):
        await database.write(lambda conn: outbox.add(conn, said("h1", kind="halt_run")))


async def test_what_a_sink_can_never_do_becomes_a_dead_letter(js: JetStreamContext, database: Database) -> None:
    async def halt(_: Outgoing) -> None:
        raise Permanent("no such run", reason="failed")

    outbox = Outbox(database, "watch", js, sinks={"halt_run": halt})
    await database.write(lambda conn: [outbox.add(conn, row) for row in (said("h1", kind="halt_run"), said("m1"))])
    assert await outbox.drain() == 2
    assert await bodies(js) == [b"m1"]
    assert len(await bodies(js, subjects.DEAD)) == 1


async def test_rows_added_while_another_drain_runs_are_said(js: JetStreamContext, database: Database) -> None:
    outbox = Outbox(database, "watch", js)

    async def one(number: int) -> None:
        await database.write(lambda conn: outbox.add(conn, said(f"m{number}")))
        await outbox.drain()

    await asyncio.gather(*(one(number) for number in range(30)))
    assert len(await bodies(js)) == 30


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_two_steps_neither_loses_nor_doubles(
    js: JetStreamContext, nc: Client, database: Database, point: str
) -> None:
    declared = await js.consumer_info(subjects.RUNS, subjects.COST_WATCHDOG)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(durable_name="t", name="t", ack_wait=0.5))
    applied: list[str] = []

    def live() -> asyncio.Task[None]:
        outbox = Outbox(database, "watch", js)

        async def handle(batch: list[Received]) -> None:
            def work(conn: Connection) -> list[str]:
                fresh = outbox.fresh(conn, [(one.event.agent, one.event.id) for one in batch])
                for _, id in sorted(fresh):
                    outbox.add(conn, said(f"alert-{id}"))
                return [id for _, id in fresh]

            applied.extend(await database.write(work))

        async def run() -> None:
            await outbox.drain()
            reader: RunReader = RunReader(
                nc, js, stream=subjects.RUNS, consumer="t", service="t", handle=handle, outbox=outbox, batch=4
            )
            await reader.run()

        return asyncio.create_task(run())

    _crash_once(point)
    ids = [await publish(js, "said", seq=n, by="agent", text="x") for n in range(10)]
    with pytest.raises(Crash):
        await asyncio.wait_for(live(), 20)
    task = live()

    await eventually(lambda: all_read(js, subjects.RUNS, "t"))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sorted(await bodies(js)) == sorted(f"alert-{id}".encode() for id in ids)
    assert sorted(applied) == sorted(ids)


def _crash_once(point: str) -> None:
    def hook(reached: str) -> None:
        if reached == point:
            faults.set_hook(None)
            raise Crash

    faults.set_hook(hook)
