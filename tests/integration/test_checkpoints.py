"""Keys, checkpoints and where they go: signed once, and taken by each sink however often it failed."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.js import JetStreamContext

from evidence_helpers import SealedLog
from logged import NOON
from midwatch.contracts import codec, subjects
from midwatch.errors import Temporary
from midwatch_services.logger.evidence import checkpoint_file, checkpoint_store, checkpoints, keys, sinks
from midwatch_services.logger.evidence.notary import Notary


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SealedLog]:
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    made = SealedLog(url, tmp_path)
    yield made
    made.database.close()


def numbers(log: SealedLog) -> list[int]:
    return [one.number for one in checkpoint_file.read(log.file)]


# Keys


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "signing.key"
    made = keys.load_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load_or_make(path).id == made.id
    assert made.id in keys.load_public(tmp_path / "evidence" / "signing.pub")
    assert sorted(one.name for one in path.parent.iterdir()) == ["signing.key", "signing.pub"]


def test_of_many_processes_that_start_at_once_one_makes_the_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from midwatch_services.logger.evidence.keys import load_or_make; "
        "sys.stdin.read(); print(load_or_make(pathlib.Path(sys.argv[1])).id)"
    )
    start = [sys.executable, "-c", program, str(tmp_path / "signing.key")]
    processes = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = set()
    for process in processes:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    for process in processes:
        ids.add(process.communicate(timeout=20)[0].strip())
        assert process.returncode == 0
    assert ids == {keys.load_or_make(tmp_path / "signing.key").id}


def test_a_key_that_everybody_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    keys.load_or_make(path)
    path.chmod(0o644)
    with pytest.raises(keys.KeyIsOpen, match=f"chmod 600 {path}") as refused:
        keys.load_or_make(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(keys.BadKey, match="private key"):
        keys.load_or_make(path)


# Checkpoints


async def test_a_checkpoint_names_the_heads_that_moved_and_only_those(log: SealedLog) -> None:
    now = NOON
    notary = Notary(log.database, log.folder / "signing.key", lambda: now)
    await notary.tick()
    assert log.database.read_now(checkpoint_store.last) is None  # nothing to sign
    log.store()
    log.seal()
    await notary.tick()
    first = log.database.read_now(checkpoint_store.last)
    assert first is not None
    assert (first.number, {agent: number for agent, (number, _) in first.heads.items()}) == (1, {"desk": 1, "other": 1})
    assert checkpoints.is_signed(first, log.public())
    now += timedelta(minutes=1)
    await notary.tick()
    assert log.one("SELECT count(*) FROM logger_checkpoints") == 1  # nothing moved
    log.store()
    log.seal()
    await asyncio.gather(*(Notary(log.database, log.folder / "signing.key", lambda: now).tick() for _ in range(3)))
    second = log.database.read_now(checkpoint_store.last)
    assert second is not None and log.one("SELECT count(*) FROM logger_checkpoints") == 2
    assert second.previous == checkpoints.digest(first)


def test_anyone_can_make_the_signed_bytes_again(log: SealedLog) -> None:
    log.fill(1)
    line = json.loads(log.file.read_text())
    signature = bytes.fromhex(line.pop("signature"))
    signed = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    assert log.public().verify(line["key"], signature, signed)


async def test_without_a_key_that_may_be_used_nothing_is_signed_and_nothing_fails(log: SealedLog) -> None:
    log.store()
    log.seal()
    (log.folder / "signing.key").chmod(0o644)
    notary = Notary(log.database, log.folder / "signing.key", lambda: NOON)
    await notary.start()
    await notary.tick()
    assert log.one("SELECT count(*) FROM logger_checkpoints") == 0
    (log.folder / "signing.key").chmod(0o600)
    await notary.tick()
    assert log.one("SELECT count(*) FROM logger_checkpoints") == 1


# The file


async def test_the_file_gets_each_checkpoint_once_and_goes_on_after_a_torn_line(log: SealedLog) -> None:
    log.fill(2)
    log.file.unlink()
    sink = sinks.FileSink(log.database, log.file)
    assert await sink.catch_up() == 0
    assert await sink.catch_up() == 0
    assert numbers(log) == [1, 2]
    with log.file.open("ab") as file:
        file.write(b'{"at":"2026-11-22T12:')
    log.store()
    log.seal()
    log.database.write_now(
        lambda conn: checkpoint_store.add(
            conn, checkpoints.make(checkpoint_store.last(conn), checkpoint_store.moved(conn), "2026", log.key)
        )
    )
    await sinks.FileSink(log.database, log.file).catch_up()
    assert numbers(log) == [1, 2, 3]
    assert log.check().is_whole


async def test_two_processes_add_to_one_file_without_a_gap_or_a_repeat(log: SealedLog) -> None:
    log.fill(3)
    log.file.unlink()
    both = [sinks.FileSink(log.database, log.file) for _ in range(4)]
    for _ in range(2):
        await asyncio.gather(*(sink.catch_up() for sink in both))
    assert numbers(log) == [1, 2, 3]


async def test_a_file_that_is_ahead_of_a_restored_database_keeps_both(log: SealedLog) -> None:
    log.fill(3)
    log.run("DELETE FROM logger_checkpoints WHERE number = 3", "DELETE FROM logger_checkpoint_heads WHERE block = 3")
    sink = sinks.FileSink(log.database, log.file)
    await sink.catch_up()
    assert numbers(log) == [1, 2, 3]
    made = log.database.read_now(
        lambda conn: checkpoints.make(checkpoint_store.last(conn), checkpoint_store.moved(conn), "2027", log.key)
    )
    log.database.write_now(lambda conn: checkpoint_store.add(conn, made))
    await sink.catch_up()
    await sink.catch_up()
    assert numbers(log) == [1, 2, 3, 3]
    assert "checkpoint" in {finding.what for finding in log.check().findings}


# Address and bus


class Receiver:
    """A real HTTP server that can be told to refuse."""

    def __init__(self) -> None:
        self.status, self.bodies, self.ids = 204, list[dict[str, Any]](), list[str]()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}/checkpoints"

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields["content-length"]))
        if self.status < 300:
            self.bodies.append(msgspec.json.decode(body))
            self.ids.append(fields["idempotency-key"])
        writer.write(f"HTTP/1.1 {self.status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    yield made
    await made.stop()


async def test_an_address_gets_each_checkpoint_however_often_it_refused(log: SealedLog, receiver: Receiver) -> None:
    url = await receiver.start()
    log.fill(2)
    receiver.status = 503
    courier = sinks.Courier([sinks.UrlSink(log.database, url), sinks.FileSink(log.database, log.file)])
    await courier.tick()
    assert receiver.bodies == []
    receiver.status = 204
    await courier.tick()
    await sinks.Courier([sinks.UrlSink(log.database, url)]).tick()  # as after a restart
    assert [one["number"] for one in receiver.bodies] == [1, 2]
    assert receiver.ids == [checkpoints.digest(one) for one in checkpoint_file.read(log.file)]


async def test_a_dead_address_holds_up_no_other_sink(log: SealedLog) -> None:
    log.fill(2)
    log.file.unlink()
    dead = sinks.UrlSink(log.database, "http://127.0.0.1:9/nobody")
    await sinks.Courier([dead, sinks.FileSink(log.database, log.file)]).tick()
    assert numbers(log) == [1, 2]
    with pytest.raises(OSError, match="refused"):
        await dead.catch_up()


async def test_the_bus_gets_each_checkpoint_and_hears_what_a_database_made_after_it_was_cut(
    log: SealedLog, js: JetStreamContext
) -> None:
    log.fill(2)
    sink = sinks.NatsSink(log.database, js, lambda: NOON)
    assert await sink.catch_up() == 0
    assert await sink.catch_up() == 0
    state = (await js.stream_info(subjects.GOVERNANCE)).state
    assert state.messages == 2
    message = await js.get_msg(subjects.GOVERNANCE, 2)
    event = codec.decode(message.subject or "", message.data or b"")
    assert (message.subject, event.data) == (
        "midwatch.evidence._fleet.checkpointed",
        [*checkpoint_file.read(log.file)][1],
    )
    log.run("DELETE FROM logger_checkpoints", "DELETE FROM logger_checkpoint_heads")
    log.file.unlink()
    log.sign()
    await sink.catch_up()
    assert (await js.stream_info(subjects.GOVERNANCE)).state.messages == 3


async def test_a_bus_that_does_not_answer_is_tried_again(log: SealedLog, js: JetStreamContext) -> None:
    log.fill(1)

    class Silent(sinks.NatsSink):
        async def hand_over(self, checkpoint: Any) -> None:
            raise Temporary("no answer")

    with pytest.raises(Temporary):
        await Silent(log.database, js, lambda: NOON).catch_up()
    assert await sinks.NatsSink(log.database, js, lambda: NOON).catch_up() == 0
    assert (await js.stream_info(subjects.GOVERNANCE)).state.messages == 1
