"""`midwatch export` and `import` as they are typed, with no service up."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from kept import empty_log, save, save_alert_of, whole_run
from midwatch.runtime.database import Database
from midwatch.runtime.settings import Settings
from midwatch_services.commands import export, import_log, runs


def midwatch(*words: str) -> Result:
    app = typer.Typer()
    for module in (export, import_log, runs):
        module.register(app)
    return CliRunner().invoke(app, list(words), terminal_width=200)


@pytest.fixture
def log() -> Iterator[Database]:
    url = Settings().database_for("logger")
    Database(url).close()
    with empty_log(url) as database:
        save(database, [*whole_run("r-1", 20), *whole_run("r-2", 1, agent="other")])
        save_alert_of(database, "r-1", 20)
        yield database


@pytest.mark.usefixtures("log")
def test_a_log_is_the_same_after_export_and_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    done = midwatch("export", "--out", str(out), "--by", "sam")
    assert (done.exit_code, "2 runs, 6 events, 1 alerts" in done.stdout) == (0, True)
    assert sorted(os.listdir(out)) == [
        "alerts.jsonl.gz", "blocks.jsonl.gz", "checkpoints.jsonl", "events.jsonl.gz", "manifest.json", "runs.jsonl.gz",
    ]  # fmt: skip
    before = [midwatch(*words).stdout for words in (("runs", "--json"), ("show", "r-1", "--json"))]
    monkeypatch.setenv("MIDWATCH_DATABASE_URL", f"sqlite:///{tmp_path}/elsewhere/log.db")
    done = midwatch("import", str(out))
    assert (done.exit_code, "2 runs, 6 events, 1 alerts" in done.stdout) == (0, True)
    assert [midwatch(*words).stdout for words in (("runs", "--json"), ("show", "r-1", "--json"))] == before


@pytest.mark.usefixtures("log")
def test_an_altered_export_is_refused_unless_it_is_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    midwatch("export", "--out", str(out))
    (out / "runs.jsonl.gz").write_bytes((out / "alerts.jsonl.gz").read_bytes())
    monkeypatch.setenv("MIDWATCH_DATABASE_URL", f"sqlite:///{tmp_path}/elsewhere/log.db")
    done = midwatch("import", str(out))
    assert (done.exit_code, done.stderr) == (
        1,
        "midwatch: nothing was imported: runs.jsonl.gz is not the file that was written: its SHA-256 differs from the "
        "manifest's. Import it all the same with --force-unverified\n",
    )
    assert not (tmp_path / "elsewhere").exists()
    done = midwatch("import", str(out), "--force-unverified")
    assert (done.exit_code, "NOT verified" in done.stderr) == (0, True)


@pytest.mark.usefixtures("log")
def test_a_folder_in_use_and_a_format_that_is_none_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    done = midwatch("export", "--out", str(tmp_path / "out"))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert midwatch("export", "--out", str(tmp_path / "new"), "--format", "csv").exit_code == 2
    assert midwatch("import", str(tmp_path / "new")).exit_code == 1


def test_without_a_log_one_line_says_what_to_do(tmp_path: Path) -> None:
    done = midwatch("export", "--out", str(tmp_path / "out"))
    assert (done.exit_code, done.stderr.count("\n"), "midwatch up" in done.stderr) == (1, 1, True)
    assert not list(tmp_path.glob("out*"))
