"""Logs that are exported and imported, for the tests of both."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kept import NOW, empty_log, placed, save, save_alert_of, seal, sqlite_url, whole_run
from logged import received
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch_services.logger.transfer.bring_back import Import, Report
from midwatch_services.logger.transfer.export import export
from midwatch_services.logger.transfer.layout import Filter, Manifest, read_manifest

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
Open = Callable[[str], Database]


@pytest.fixture
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens an empty log in a database of either kind."""
    opened: list[Any] = []

    def make(kind: str, name: str = "") -> Database:
        url = sqlite_url(tmp_path, f"log{len(opened)}")
        if kind == "postgresql":
            url = request.getfixturevalue("postgres_url")
        manager = empty_log(url)
        opened.append(manager)
        return manager.__enter__()

    yield make
    faults.set_hook(None)
    for manager in opened:
        manager.__exit__(None, None, None)


def fill(log: Database) -> None:
    """Two agents, three runs, an alert of a run and one of none; the chains as the sequencer would leave them."""
    save(log, whole_run("r-1", 40, ticket="T-1", customer="c-7"))
    called = received("model_called", run_id="r-1", seq=7, model="m", cost_usd="0.05", at=NOW, stored_at=NOW)
    save(log, [placed(called), *whole_run("r-2", 20), *whole_run("r-3", 1, agent="other")])
    save_alert_of(log, "r-1", 40)
    save_alert_of(log, None, 39)
    seal(log)


def made(log: Database, folder: Path, format: Any = "jsonl", **wanted: Any) -> Manifest:
    return export(log, folder, Filter(**wanted), format, by="sam", now=NOW)


def brought(log: Database, folder: Path, **more: Any) -> Report:
    return Import(log, folder, read_manifest(folder), NOW, **more).run()


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def rewrite_lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join(change(lines)) + b"\n"))


def alter(line: bytes, **columns: Any) -> bytes:
    return json.dumps({**json.loads(line), **columns}).encode()
