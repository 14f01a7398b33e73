"""A log that was filled by the release before is brought up to date with all that it holds."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from kept import count, empty_log, save, whole_run
from midwatch.runtime.database import Database, migrate
from midwatch_services.logger import store
from midwatch_services.logger.partitions import partitions

OLD_EVENT = (
    "agent", "id", "run_id", "event", "seq", "time", "stored_at", "mode", "version", "ticket", "note", "body",
)  # fmt: skip
_KEYS = ("head", "ticket", "session", "started", "finished", "handed_off")
_COUNTS = (
    "input_tokens", "output_tokens", "model_calls", "model_errors", "tool_calls", "tool_errors", "messages", "model_us",
    "tool_us",
)  # fmt: skip
OLD_RUN = {**{f"{name}_key": "" for name in _KEYS}, **dict.fromkeys(_COUNTS, 0)}


def old_events(run_id: str, *months: str) -> list[dict[str, Any]]:
    rows = [
        ("desk", f"{run_id}-{n}", run_id, "said", n, f"{month}-07T08:00:00.000000Z", f"{month}-07T08:00:01.000000Z",
         "live", "1", None, None, '{"data": {}}')
        for n, month in enumerate(months)
    ]  # fmt: skip
    return [dict(zip(OLD_EVENT, row, strict=True)) for row in rows]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database as of migration logger_0002: a run over two months, one of a third, and an event of no run."""
    found = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        found = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    with monkeypatch.context() as before:
        upgrade = command.upgrade
        before.setattr(command, "upgrade", lambda config, _: upgrade(config, "logger_0002"))
        migrate(found, "logger")
    database = Database(found, name="test")
    runs = [
        {**OLD_RUN, "agent": "desk", "run_id": run_id, "version": "1", "mode": "live", "events": events,
         "first_at": f"{month}-07T08:00:00.000000Z", "last_at": f"{month}-07T08:00:00.000000Z"}
        for run_id, month, events in (("r-1", "2026-09", 2), ("r-2", "2026-11", 1))
    ]  # fmt: skip
    events = [*old_events("r-1", "2026-09", "2026-10"), *old_events("r-2", "2026-11"), *old_events("lost", "2026-08")]

    def fill(conn: Any) -> None:
        for table, rows in (("logger_runs", runs), ("logger_events", events)):
            names = list(rows[0])
            values = ", ".join(f":{name}" for name in names)
            conn.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"), rows)

    database.write_now(fill)
    database.close()
    yield found


def test_every_event_is_kept_in_the_month_of_its_run(url: str) -> None:
    with empty_log(url) as log:
        found = log.read_now(
            lambda conn: conn.exec_driver_sql("SELECT id, month, place FROM logger_events ORDER BY id").all()
        )
        assert [tuple(row) for row in found] == [
            ("lost-0", "2026-08", 0), ("r-1-0", "2026-09", 0), ("r-1-1", "2026-09", 0), ("r-2-0", "2026-11", 0),
        ]  # fmt: skip
        heard = log.read_now(
            lambda conn: conn.exec_driver_sql("SELECT stored_at FROM logger_runs ORDER BY run_id").all()
        )
        assert [row[0] for row in heard] == ["2026-10-07T08:00:01.000000Z", "2026-11-07T08:00:01.000000Z"]
        if log.dialect == "postgresql":
            assert log.read_now(partitions) == ["2026-08", "2026-09", "2026-11"]


def test_events_that_come_again_after_it_are_recognised(url: str) -> None:
    with empty_log(url) as log:
        late = whole_run("r-1", 0, events=2)
        save(log, late)
        save(log, late)
        [run] = log.read_now(lambda conn: store.read_runs(conn, run_id="r-1"))
        assert (run["events"], count(log, "logger_events")) == (4, 6)
        months = log.read_now(
            lambda conn: conn.exec_driver_sql("SELECT DISTINCT month FROM logger_events WHERE run_id = 'r-1'").all()
        )
        assert [row[0] for row in months] == ["2026-09"]


def test_an_id_is_known_again_in_another_run_of_another_month_on_sqlite(tmp_path: Any) -> None:
    from dataclasses import replace

    from kept import ago, placed
    from logged import received

    with empty_log(f"sqlite:///{tmp_path}/log.db") as log:
        first = received("said", id="same", by="agent", text="x", run_id="r-1", at=ago(90), stored_at=ago(90))
        again = received("said", id="same", by="agent", text="x", run_id="r-2", at=ago(0), stored_at=ago(0))
        save(log, [placed(replace(first))])
        save(log, [placed(again)])
        assert count(log, "logger_events") == 1
