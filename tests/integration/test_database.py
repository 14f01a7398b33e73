"""Transactions on both databases: one writer, new rows only, trouble that passes told from trouble that does not."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from midwatch.errors import Misconfigured, Temporary
from midwatch.runtime import database as module
from midwatch.runtime.database import Database, NoDatabase, insert_new, migrate, upsert

COLUMNS = ("agent", "id", "body")
KEY = ("agent", "id")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/test.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
    opened = Database(url, name="test")
    await opened.write(
        lambda conn: conn.exec_driver_sql("CREATE TABLE t (agent TEXT, id TEXT, body TEXT, PRIMARY KEY (agent, id))")
    )
    yield opened
    opened.close()


async def rows(database: Database) -> list[tuple[Any, ...]]:
    return await database.read(lambda conn: [tuple(r) for r in conn.exec_driver_sql("SELECT * FROM t ORDER BY id")])


async def test_only_rows_that_are_not_there_are_inserted(database: Database) -> None:
    first = [("a", "1", "x"), ("a", "2", "x")]
    assert await database.write(lambda conn: insert_new(conn, "t", COLUMNS, first, KEY)) == [0, 1]
    second = [("a", "2", "y"), ("a", "3", "y"), ("a", "3", "z"), ("b", "1", "y")]
    assert await database.write(lambda conn: insert_new(conn, "t", COLUMNS, second, KEY)) == [1, 3]
    assert {row[2] for row in await rows(database) if row[:2] in (("a", "2"), ("a", "3"))} == {"x", "y"}


async def test_a_text_with_a_nul_breaks_nothing_and_is_known_again(database: Database) -> None:
    odd = [("a", "1\0", "x\0"), ("a", "2", "x")]
    assert await database.write(lambda conn: insert_new(conn, "t", COLUMNS, odd, KEY)) == [0, 1]
    assert await database.write(lambda conn: insert_new(conn, "t", COLUMNS, odd, KEY)) == []
    select = sa.text("SELECT count(*) FROM t WHERE id = :id")
    assert await database.read(lambda conn: conn.execute(select, {"id": "1\0"}).scalar()) == 1


async def test_many_rows_at_once_are_all_inserted(database: Database) -> None:
    many = [("a", f"{n:05d}", "x") for n in range(1337)]
    assert await database.write(lambda conn: insert_new(conn, "t", COLUMNS, many, KEY)) == list(range(1337))
    assert len(await rows(database)) == 1337


async def test_upsert_puts_a_row_in_the_place_of_the_old_one(database: Database) -> None:
    await database.write(lambda conn: upsert(conn, "t", COLUMNS, [("a", "1", "old"), ("a", "2", "old")], KEY))
    await database.write(lambda conn: upsert(conn, "t", COLUMNS, [("a", "2", "new"), ("a", "3", "new")], KEY))
    assert [row[2] for row in await rows(database)] == ["old", "new", "new"]


ODD = [None, "", "null", '"', "\\", "\\u0000", "\\N", "a\tb\r\n", "é 𝛑", "\0", "{}"]


async def test_upsert_keeps_every_text_and_number_as_it_is(database: Database) -> None:
    names = ("id", "text", "number", "real", "bytes")
    found = [
        (str(at), text, number, None, None)
        for at, (text, number) in enumerate((t, n) for t in ODD for n in (0, -(2**63), 2**63 - 1, None))
    ]
    wide = [("f", "x", 1, 0.1, None), ("b", "x", None, None, b"\0\xff")]  # what JSON has no word for

    def work(conn: sa.Connection) -> list[tuple[Any, ...]]:
        blob = "BLOB" if database.dialect == "sqlite" else "BYTEA"
        conn.exec_driver_sql(
            f"CREATE TABLE u (id TEXT PRIMARY KEY, text TEXT, number BIGINT, real DOUBLE PRECISION, bytes {blob})"
        )
        upsert(conn, "u", names, [("0", "old", 7, 7.5, b"old")], ("id",))
        for some in (found, wide):
            upsert(conn, "u", names, some, ("id",))
        return [tuple(row) for row in conn.exec_driver_sql("SELECT * FROM u")]

    expected = [*found, *wide]
    if database.dialect == "postgresql":  # its texts hold no NUL
        expected = [(row[0], "\ufffd" if row[1] == "\0" else row[1], *row[2:]) for row in expected]
    assert sorted(await database.write(work), key=repr) == sorted(expected, key=repr)


async def test_what_a_failed_transaction_did_is_undone(database: Database) -> None:
    def work(conn: sa.Connection) -> None:
        insert_new(conn, "t", COLUMNS, [("a", "1", "x")], KEY)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(work)
    assert await rows(database) == []


async def test_writers_come_one_after_another(database: Database) -> None:
    other = Database(database.engine.url.render_as_string(hide_password=False), name="test")

    def add_one(conn: sa.Connection) -> None:
        found = conn.exec_driver_sql("SELECT body FROM t WHERE id = '1'").scalar()
        upsert(conn, "t", COLUMNS, [("a", "1", str(int(found or 0) + 1))], KEY)

    try:
        await asyncio.gather(*((database, other)[n % 2].write(add_one) for n in range(20)))
    finally:
        other.close()
    assert [row[2] for row in await rows(database)] == ["20"]


async def test_an_error_does_not_print_what_was_to_be_written(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError) as caught:
        await database.write(lambda conn: conn.execute(sa.text("INSERT INTO nowhere VALUES (:v)"), {"v": "secret"}))
    assert "secret" not in str(caught.value)


async def test_a_statement_that_is_wrong_is_not_taken_for_trouble_that_passes(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        await database.write(lambda conn: conn.exec_driver_sql("SELECT * FROM nowhere"))


async def test_a_locked_file_is_trouble_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    database = Database(f"sqlite:///{tmp_path}/locked.db")
    await database.ping()
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Temporary, match="locked"):
        await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))
    other.close()
    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))
    database.close()


@pytest.mark.postgres
async def test_a_lost_connection_is_trouble_that_passes(postgres_url: str) -> None:
    database = Database(postgres_url.replace("postgresql://", "postgresql+psycopg://"))

    def end_myself(conn: sa.Connection) -> None:
        conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(Temporary, match="does not answer"):
        await database.write(end_myself)
    await database.ping()
    database.close()


@pytest.mark.postgres
async def test_a_connection_lost_in_a_bulk_insert_is_trouble_that_passes(postgres_url: str) -> None:
    database = Database(postgres_url.replace("postgresql://", "postgresql+psycopg://"))

    def end_then_insert(conn: sa.Connection) -> None:
        raw: Any = conn.connection.driver_connection
        with psycopg.connect(postgres_url) as other:
            other.execute(f"SELECT pg_terminate_backend({raw.info.backend_pid})")
        insert_new(conn, "t", COLUMNS, [("a", "1", "x")], KEY)

    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (agent TEXT, id TEXT, body TEXT)"))
    with pytest.raises(Temporary, match="does not answer"):
        await database.write(end_then_insert)
    await database.ping()
    database.close()


@pytest.mark.postgres
async def test_a_database_that_only_lets_read_is_trouble_that_passes(postgres_url: str) -> None:
    database = Database(postgres_url)
    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (agent TEXT, id TEXT, body TEXT)"))

    def only_read(conn: sa.Connection) -> None:
        conn.exec_driver_sql("SET TRANSACTION READ ONLY")
        insert_new(conn, "t", COLUMNS, [("a", "1", "x")], KEY)

    with pytest.raises(Temporary, match="read-only transaction"):
        await database.write(only_read)
    database.close()


@pytest.mark.postgres
async def test_a_right_that_was_taken_away_is_trouble_that_passes(postgres_url: str) -> None:
    database = Database(postgres_url)

    def as_nobody(conn: sa.Connection) -> None:
        conn.exec_driver_sql("SET LOCAL ROLE pg_monitor")
        conn.exec_driver_sql("INSERT INTO t VALUES ('a', '1', 'x')")

    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (agent TEXT, id TEXT, body TEXT)"))
    with pytest.raises(Temporary, match="permission denied"):
        await database.write(as_nobody)
    database.close()


@pytest.mark.postgres
async def test_a_row_that_no_index_can_hold_does_not_pass_and_stops_no_line(postgres_url: str) -> None:
    database = Database(postgres_url)
    large = "".join(f"{n:x}-{n * n:x}-" for n in range(3000))  # an index holds 2,704 bytes of it, compressed
    await database.write(
        lambda conn: conn.exec_driver_sql("CREATE TABLE t (agent TEXT, id TEXT, body TEXT, PRIMARY KEY (agent, id))")
    )
    with pytest.raises(psycopg.errors.ProgramLimitExceeded):
        await database.write(lambda conn: insert_new(conn, "t", COLUMNS, [("a", large, "x")], KEY))
    database.close()


async def test_a_file_that_cannot_be_written_is_trouble_that_passes(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/read.db")
    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))
    sa.event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only = ON"))
    database.engine.dispose()
    with pytest.raises(Temporary, match="readonly"):
        await database.write(lambda conn: conn.exec_driver_sql("INSERT INTO t VALUES (1)"))
    database.close()


async def test_a_full_disk_is_trouble_that_passes(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/full.db")
    await database.write(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))

    def too_much(conn: sa.Connection) -> None:
        conn.exec_driver_sql("PRAGMA max_page_count = 3")
        conn.exec_driver_sql("INSERT INTO t VALUES (zeroblob(1000000))")

    with pytest.raises(Temporary, match="disk is full"):
        await database.write(too_much)
    database.close()


ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


async def test_a_query_over_its_limit_is_ended_and_the_connection_serves_on(database: Database) -> None:
    with pytest.raises(TimeoutError, match=r"within 0.3 s"):
        await asyncio.wait_for(database.read(lambda conn: conn.exec_driver_sql(ENDLESS).scalar(), within=0.3), 3)
    assert await rows(database) == []


async def test_closing_waits_for_no_query_that_has_a_limit(database: Database) -> None:
    under_way = [
        asyncio.create_task(database.read(lambda conn: conn.exec_driver_sql(ENDLESS).scalar(), within=60))
        for _ in range(3)
    ]
    await asyncio.sleep(0.2)
    await asyncio.wait_for(asyncio.to_thread(database.close), 3)
    assert all(isinstance(one, BaseException) for one in await asyncio.gather(*under_way, return_exceptions=True))


@pytest.mark.postgres
async def test_a_server_that_hangs_keeps_no_reader(postgres_url: str) -> None:
    database = Database(postgres_url)
    process = await database.read(lambda conn: conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(database.read(lambda conn: conn.exec_driver_sql("SELECT 1"), within=0.2), 5)
    finally:
        os.kill(process, signal.SIGCONT)
    await database.ping()
    database.close()


def test_anothers_file_is_read_as_it_is_now_and_neither_made_nor_written(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    owner = Database(f"sqlite:///{file}")
    owner.write_now(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))
    reader = Database(f"sqlite:///{file}", must_exist=True)

    def count(conn: sa.Connection) -> int:
        return int(conn.exec_driver_sql("SELECT count(*) FROM t").scalar_one())

    assert reader.read_now(count) == 0
    owner.close()
    assert reader.read_now(count) == 0
    with pytest.raises(Temporary, match="readonly"):
        reader.write_now(lambda conn: conn.exec_driver_sql("INSERT INTO t VALUES (1)"))
    for one in tmp_path.glob("log.db*"):
        one.unlink()
    with pytest.raises(NoDatabase):
        reader.read_now(count)
    assert not file.exists()
    restored = Database(f"sqlite:///{file}")
    restored.write_now(lambda conn: conn.exec_driver_sql("CREATE TABLE t AS SELECT 1 AS x"))
    assert reader.read_now(count) == 1
    restored.close()
    reader.close()
    assert [one.name for one in tmp_path.iterdir()] == ["log.db"]  # who closes last empties the log into the file


def test_anothers_file_is_read_after_a_crash(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    code = (
        "import os; from midwatch.runtime.database import Database; "
        f"Database({url!r}).write_now(lambda conn: conn.exec_driver_sql('CREATE TABLE t AS SELECT 1 AS x')); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    reader = Database(url, must_exist=True)
    assert reader.read_now(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM t").scalar()) == 1
    reader.close()


def test_a_database_that_is_not_there_names_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoDatabase, match="midwatch up"):
        Database(f"sqlite:///{tmp_path}/none.db", must_exist=True)


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    database = Database(url)
    tables = []
    for _ in range(2):
        migrate(url, "logger")
        tables.append(database.read_now(lambda conn: set(sa.inspect(conn).get_table_names())))
    database.close()
    assert tables[0] == tables[1] > {"logger_events", "logger_runs", "logger_alerts", "alembic_version_logger"}


def test_a_database_of_a_newer_release_is_one_line_that_names_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    migrate(url, "logger")
    database = Database(url)
    database.write_now(lambda conn: conn.exec_driver_sql("UPDATE alembic_version_logger SET version_num='logger_9999'"))
    database.close()
    with pytest.raises(Misconfigured) as caught:
        migrate(url, "logger")
    assert str(caught.value) == (
        f"The tables of logger in {url} are of a newer release than this one: start the newer release, or restore the "
        "backup that was made before it."
    )


@pytest.mark.postgres
def test_migrations_run_on_postgres(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    migrate(url, "logger")
    database = Database(url)
    version = database.read_now(lambda conn: conn.exec_driver_sql("SELECT * FROM alembic_version_logger").scalar())
    database.close()
    scripts = (resources.files("midwatch_services.logger") / "migrations").iterdir()
    newest = max(file.name for file in scripts if file.name.endswith(".py"))
    assert version == f"logger_{newest[:4]}"


def test_a_reader_that_comes_while_somebody_writes_does_not_wait(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    writing, reading = Database(url), Database(url)
    writing.write_now(lambda conn: conn.exec_driver_sql("CREATE TABLE t (x)"))

    def work(conn: sa.Connection) -> int:
        conn.exec_driver_sql("INSERT INTO t VALUES (1)")
        return int(reading.read_now(lambda other: other.exec_driver_sql("SELECT count(*) FROM t").scalar_one()))

    assert writing.write_now(work) == 0
    writing.close()
    reading.close()
