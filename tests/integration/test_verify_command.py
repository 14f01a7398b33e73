"""`midwatch verify`: what it says and how it ends."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from evidence_helpers import SealedLog
from midwatch_services.commands import verify as command
from midwatch_services.logger import store
from midwatch_services.logger.evidence import prove


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SealedLog]:
    """Where the logger keeps it."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "evidence").mkdir()
    monkeypatch.setenv("MIDWATCH_HOME", str(home))
    made = SealedLog(f"sqlite:///{home}/data/logger.db", home / "evidence")
    made.fill()
    yield made
    made.database.close()


def verify(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    command.register(app)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_a_whole_log_says_what_was_checked_and_ends_with_0(log: SealedLog) -> None:
    log.store()
    code, output = verify()
    assert (code, output.splitlines()) == (
        0,
        [
            "42 events, 8 blocks, 4 checkpoints, the last signed 2026-11-22T12:00:20.000000Z.",
            "2 not sealed yet, the oldest stored 2026-11-22T12:00:20.001000Z.",
            "Whole: every sealed event is as it was stored.",
        ],
    )


def test_an_altered_log_names_the_first_record_and_ends_with_1(log: SealedLog) -> None:
    for number in range(1, 40):
        log.run(f"UPDATE logger_events SET version = '2' WHERE id = 'e-{number}'")
    code, output = verify()
    lines = output.splitlines()
    assert (code, lines[1]) == (1, "Not whole: 39 altered.")
    assert lines[2].startswith("  event started e-1 of run r-desk (agent desk, sequence 1, stored 2026-11-22T12:00:00.")
    assert lines[-1] == "  … and 19 more: --json names the first of each sort"


def test_json_is_one_object(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id = 'e-7'")
    code, output = verify("--json")
    told = json.loads(output)
    assert (code, told["whole"], told["counts"], told["findings"][0]["what"]) == (1, False, {"missing": 1}, "missing")


def test_a_part_by_agent_or_time_is_checked(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id = 'e-7'")
    assert verify("--agent", "other")[0] == 0
    assert verify("--agent", "desk")[0] == 1
    assert verify("--since", "2026-11-22T12:00:05Z")[0] == 0
    assert verify("--until", "2026-11-22T12:00:05Z")[0] == 1
    assert verify("--since", "2026-11-22T12:00:02Z", "--until", "2026-11-22T12:00:03Z")[0] == 0


def test_one_run_is_checked_up_to_a_signature_with_its_row(log: SealedLog) -> None:
    assert verify("--run", "r-desk") == (0, "Whole: run r-desk of desk is as it was stored.\n")
    log.run("UPDATE logger_runs SET resolution = 'resolved' WHERE run_id = 'r-desk'")
    code, output = verify("--run", "r-desk")
    assert (code, output.splitlines()[1]) == (
        1, "  the resolution in the row of run r-desk is not what its events make of it",
    )  # fmt: skip
    assert verify("--run", "nobody")[0] == 2


def test_an_export_and_a_dossier_are_checked_without_the_log(log: SealedLog, tmp_path: Path) -> None:
    folder = log.export(tmp_path / "export")

    def work(conn: Any) -> dict[str, Any]:
        return {"events": store.read_events(conn, "desk", "r-desk"), "proof": prove.prove(conn, "desk", "r-desk")}

    dossier = tmp_path / "dossier.json"
    dossier.write_text(json.dumps(log.database.read_now(work)))
    log.run("DELETE FROM logger_events")
    key = str(log.folder / "signing.pub")
    assert verify("--export", str(folder), "--key", key)[0] == 0
    assert verify("--dossier", str(dossier), "--key", key)[0] == 0
    dossier.write_text(dossier.read_text().replace("Where is it?", "Who is it?"))
    code, output = verify("--dossier", str(dossier), "--key", key)
    assert (code, "event started e-1 (seq 0) was altered: it does not hash to its leaf" in output) == (1, True)


def test_what_cannot_be_checked_ends_with_2_and_says_what_to_do(log: SealedLog, tmp_path: Path) -> None:
    assert verify("--checkpoints", str(tmp_path / "none"))[0] == 2
    assert verify("--key", str(tmp_path / "none"))[0] == 2
    assert verify("--export", str(tmp_path))[0] == 2
    assert verify("--run", "r-desk", "--export", str(tmp_path))[0] == 2
    assert verify("--until", "noon")[0] == 2
    (log.folder / "signing.pub").unlink()
    code, output = verify()
    assert code == 2
    assert "No signature was checked, for there is no public key: give one with --key." in output


def test_without_a_log_it_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_HOME", str(tmp_path / "nothing"))
    code, output = verify()
    assert (code, "start the services with `midwatch up`" in output) == (2, True)


def test_a_damaged_file_is_a_finding(log: SealedLog) -> None:
    log.database.close()
    path = Path(log.database.engine.url.database or "")
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for at in range(16384, len(data), 16384):  # the header of each page but the first
        data[at] = 0xFF
    path.write_bytes(bytes(data))
    code, output = verify()
    assert (code, "is damaged" in output) == (1, True), output
