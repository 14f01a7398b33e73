"""Places go on when a stream is made anew, whatever part of it comes first."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from nats.js import JetStreamContext

from logged import received
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.delivery import Received
from midwatch.runtime.settings import Settings
from midwatch_services.logger.places import Streams, place


def batch(stored_at: datetime, *sequences: int) -> list[Received]:
    made = [received("said", stored_at=stored_at, by="agent", text="x") for _ in sequences]
    for one, sequence in zip(made, sequences, strict=True):
        one.stream_seq = sequence
    return made


async def test_a_batch_that_reaches_past_the_old_stream_is_known_for_the_new_ones(
    js: JetStreamContext, settings: Settings, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    migrate(url, "logger")
    database = Database(url, name="logger")
    streams = Streams(js, database)
    old = batch(datetime.now(UTC), 1, 2, 3)
    where = await streams.of(old)
    assert [where(one) for one in old] == [place(1, 1), place(1, 2), place(1, 3)]
    await js.delete_stream(subjects.RUNS)
    await topology.apply(js, settings)
    new = batch(datetime.now(UTC) + timedelta(seconds=1), 1, 2, 3, 4, 5)
    where = await streams.of(new)
    assert [where(one) for one in new] == [place(2, number) for number in (1, 2, 3, 4, 5)]
    assert await streams.refresh() == 2
    database.close()
