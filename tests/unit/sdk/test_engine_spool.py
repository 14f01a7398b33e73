"""What the engine does with events while there is no server."""

from pathlib import Path

import pytest

from helpers import eventually
from midwatch.engine import Engine

NOBODY = "nats://127.0.0.1:1"  # nothing listens there


@pytest.fixture
async def engine(tmp_path: Path):
    engine = Engine(NOBODY, home=tmp_path)
    await engine.start()
    yield engine
    await engine.close(within=0.1)


async def test_events_are_synced_to_disk_before_there_was_ever_a_server(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(engine.spool, "sync", lambda: synced.append(engine.spool.pending))
    engine.append("midwatch.run.desk.said", "id-1", b"", b"{}")
    await eventually(lambda: synced == [1] or len(synced) > 1)


async def test_a_broken_disk_is_said_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[None] = []

    def error(_: object) -> str:
        looks.append(None)
        return "the disk is full: free some space"

    monkeypatch.setattr(type(engine.spool), "error", property(error))
    await eventually(lambda: len(looks) >= 3)
    assert [record.message for record in caplog.records if "disk is full" in record.message] == [
        "midwatch: 0 events wait: the disk is full: free some space"
    ]
