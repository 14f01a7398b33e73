"""A small sealed and signed log to tamper with, in a database or as an export."""

import gzip
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from logged import NOON, received
from midwatch.runtime.database import Database, migrate
from midwatch_services.logger import store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.evidence import (
    chain_store,
    checkpoint_file,
    checkpoint_store,
    checkpoints,
    keys,
    source,
    verify,
)
from midwatch_services.logger.evidence import sequencer as seq
from midwatch_services.logger.evidence.export import opened
from midwatch_services.logger.evidence.findings import Report
from midwatch_services.logger.evidence.leaf import content_hash
from midwatch_services.logger.evidence.record import examine
from midwatch_services.logger.evidence.source import row_of, select
from midwatch_services.logger.places import place

BLOCKS = 4  # of each agent
PER_BLOCK = 5


class SealedLog:
    """Two agents, each with a run of twenty events in four blocks, with a signed checkpoint after every block."""

    def __init__(self, url: str, folder: Path) -> None:
        migrate(url, "logger")
        self.database = Database(url, name="logger")
        self.folder = folder
        self.file = folder / "checkpoints.jsonl"
        self.key = keys.load_or_make(folder / "signing.key")
        self.at = NOON
        self.number = 0

    def fill(self, blocks: int = BLOCKS) -> None:
        for _ in range(blocks):
            for _ in range(PER_BLOCK):
                self.store()
            self.seal()
            self.sign()

    def store(self) -> None:
        """One event of each agent: sequence n of the stream is `e-n`; odd ones are desk's, even ones other's."""
        batch, at = [], {}
        for agent in ("desk", "other"):
            self.number += 1
            id = f"e-{self.number}"
            at[id] = place(1, self.number)
            seq_in_run = (self.number - 1) // 2
            kind: tuple[str, dict[str, Any]] = (
                ("started", {"input": "Where is it?"}) if seq_in_run == 0 else ("said", {"by": "agent", "text": id})
            )
            batch.append(
                received(
                    kind[0],
                    id=id,
                    agent=agent,
                    run_id=f"r-{agent}",
                    seq=seq_in_run,
                    ticket="T-1",
                    at=self.at,
                    stored_at=self.at + timedelta(milliseconds=1),
                    **kind[1],
                )
            )
        self.at += timedelta(seconds=1)
        self.database.write_now(lambda conn: store.save(conn, batch, place=lambda one: at[one.event.id]))

    def seal(self) -> None:
        found = self.database.read_now(lambda conn: seq.read_next(conn, place(1, self.number)))
        assert self.database.write_now(lambda conn: seq.seal(conn, found, self.at))

    def sign(self, key: keys.SigningKey | None = None) -> None:
        """A checkpoint of the heads that moved, in the database and in the file."""

        def work(conn: Connection) -> str:
            made = checkpoints.make(
                checkpoint_store.last(conn), checkpoint_store.moved(conn), text_of(self.at), key or self.key
            )
            assert checkpoint_store.add(conn, made)
            return checkpoints.line(made)

        line = self.database.write_now(work)
        assert checkpoint_file.append(self.file, [line], checkpoint_file.last(self.file))

    def run(self, *statements: str, **given: Any) -> None:
        """SQL, as somebody with the database's password writes it."""

        def work(conn: Connection) -> None:
            for statement in statements:
                conn.execute(sa.text(statement), given)

        self.database.write_now(work)

    def one(self, query: str, **given: Any) -> Any:
        return self.database.read_now(lambda conn: conn.execute(sa.text(query), given).scalar())

    def check(self, *, outside: bool = True, only: str | None = None) -> Report:
        with self.database.engine.connect() as conn, conn.begin():
            source.snapshot(conn)
            return verify.verify(source.Tables(conn, only=only), self.public(), self.outside() if outside else None)

    def outside(self) -> verify.Outside:
        return verify.Outside("the file", lambda: checkpoint_file.read(self.file))

    def public(self) -> keys.PublicKeys:
        return keys.load_public(self.folder / "signing.pub")

    def export(self, folder: Path) -> Path:
        """The log as `midwatch export` writes it."""
        folder.mkdir()
        with self.database.engine.connect() as conn:
            for name, table, order in (
                ("events", "logger_events", "place"), ("runs", "logger_runs", "run_id"),
                ("blocks", "logger_blocks", "agent, number"),
            ):  # fmt: skip
                rows = conn.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order}")).mappings()
                write_lines(folder / f"{name}.jsonl.gz", rows)
            lines = conn.execute(sa.text("SELECT line FROM logger_checkpoints ORDER BY number")).scalars()
            (folder / "checkpoints.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / "manifest.json").write_text("{}")
        return folder

    def check_export(self, folder: Path, *, outside: bool = True) -> Report:
        with opened(folder) as (log, unread):
            report = verify.verify(log, self.public(), self.outside() if outside else None)
            for finding in unread:
                report.add(finding)
            return report


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    with gzip.open(path, "wb") as file:
        for row in rows:
            file.write(msgspec.json.encode({name: _hex(value) for name, value in row.items()}) + b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        return [msgspec.json.decode(line) for line in file]


def _hex(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, (bytes, memoryview)) else value


def told(report: Report) -> list[tuple[str, str]]:
    """What was found, and of which event."""
    return [(finding.what, finding.id or finding.agent) for finding in report.findings]


def append_note(log: SealedLog, agent: str, kind: Any, note: Any, at: datetime = NOON) -> None:
    log.database.write_now(lambda conn: chain_store.append_note(conn, agent, kind, note, at))


# What somebody with the database's password may do


def record(log: SealedLog, id: str) -> Any:
    return examine(row(log, id))


def row(log: SealedLog, id: str) -> dict[str, Any]:
    def work(conn: Connection) -> dict[str, Any]:
        found = conn.exec_driver_sql(f"{select(conn)} WHERE e.id = '{id}'").one()
        return {name: _plain(name, value) for name, value in row_of(found).items()}

    return log.database.read_now(work)


def _plain(name: str, value: Any) -> Any:
    if name in ("salt", "leaf"):
        return None if value is None else bytes(value)
    return bytes(value).decode() if isinstance(value, (bytes, memoryview)) else value


def rewrite(log: SealedLog, source: str, **change: Any) -> None:
    """Alters a record and gives it the leaf that goes with it."""
    made = {**row(log, source), **change}
    leaf = examine(made).leaf
    sets = ", ".join(f"{name} = :{name}" for name in (*change, "leaf"))
    log.run(f"UPDATE logger_events SET {sets} WHERE id = :old", **{**change, "leaf": leaf, "old": source})


def copy(log: SealedLog, source: str, **change: Any) -> None:
    """Puts in a record made after another, with the leaf that goes with it."""
    made = {**row(log, source), **change}
    if "leaf" not in change:
        made["leaf"] = examine(made).leaf
    del made["run_month"]
    log.run(f"INSERT INTO logger_events ({', '.join(made)}) VALUES ({', '.join(f':{name}' for name in made)})", **made)


def blank(log: SealedLog, id: str, erasure: str) -> None:
    """As an erasure does."""
    found = row(log, id)
    content = content_hash(found["salt"], found["body"].encode()).hex()
    body = f'{{"erased":"{erasure}","content":"{content}"}}'
    log.run(
        "UPDATE logger_events SET body = :body, salt = NULL, ticket = NULL, note = NULL WHERE id = :id",
        body=body,
        id=id,
    )
