"""The handle of a real nats-server: ports, crashes, leftovers."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from helpers import eventually
from midwatch.runtime.nats_server import FolderTaken, NatsServer, NatsServerFailed, PortTaken, start_nats


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_taken_port_is_named_with_what_to_do(nats_server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=f"Port {nats_server.port} .* MIDWATCH_NATS_PORT"):
        await start_nats(tmp_path / "second", port=nats_server.port)


async def test_a_folder_in_use_is_refused(nats_server: NatsServer) -> None:
    with pytest.raises(FolderTaken, match="MIDWATCH_HOME"):
        await start_nats(nats_server.folder)


async def test_a_bad_configuration_is_told_in_the_servers_words(tmp_path: Path) -> None:
    with pytest.raises(NatsServerFailed, match=r"Parse error.*nats\.log"):
        await start_nats(tmp_path, config="accounts {")


async def test_after_a_failed_start_the_folder_is_free(tmp_path: Path) -> None:
    with pytest.raises(NatsServerFailed):
        await start_nats(tmp_path, config="accounts {")
    async with await start_nats(tmp_path) as server:
        assert server.running


async def test_messages_of_eight_mebibytes_pass(nc: Client) -> None:
    assert nc.max_payload == 8 * 1024 * 1024


async def test_what_was_acknowledged_survives_a_kill(nats_server: NatsServer, nc: Client) -> None:
    js, url, pid = nc.jetstream(), nats_server.url, nats_server.pid
    await js.add_stream(name="S", subjects=["s.>"])
    await js.publish("s.1", b"kept")
    nats_server.kill()
    assert await nats_server.wait() == -signal.SIGKILL
    assert (nats_server.running, nats_server.pid) == (False, 0)
    await nats_server.restart()
    assert nats_server.url == url
    assert nats_server.pid != pid
    await eventually(lambda: nc.is_connected)
    assert (await js.get_last_msg("S", "s.1")).data == b"kept"


async def test_a_stopped_server_is_gone_and_stopping_again_does_nothing(nats_server: NatsServer) -> None:
    pid = nats_server.pid
    await nats_server.stop()
    await nats_server.stop()
    assert not _alive(pid)
    with pytest.raises(OSError, match=str(nats_server.port)):
        await asyncio.open_connection("127.0.0.1", nats_server.port)


_OWNER = """
import asyncio, sys, threading
from pathlib import Path
from midwatch.runtime.nats_server import start_nats

async def main():
    server = await start_nats(Path(sys.argv[1]))
    print(server.pid, flush=True)
    await asyncio.sleep(60)

if sys.argv[2] == "untied":  # a server started from another thread is not tied to the process
    threading.Thread(target=lambda: asyncio.run(main())).start()
else:
    asyncio.run(main())
"""


def _owner(folder: Path, how: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", _OWNER, str(folder), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_the_server_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    owner, pid = await asyncio.to_thread(_owner, tmp_path, "tied")
    assert _alive(pid)
    _kill(owner)
    await eventually(lambda: not _alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_server_left_behind_by_a_crash_makes_way_for_a_new_one(tmp_path: Path) -> None:
    owner, left = await asyncio.to_thread(_owner, tmp_path, "untied")
    _kill(owner)
    assert _alive(left)
    try:
        async with await start_nats(tmp_path) as server:
            assert not _alive(left)
            connection = await nats.connect(server.url)
            await connection.close()
    finally:
        if _alive(left):
            os.kill(left, signal.SIGKILL)
