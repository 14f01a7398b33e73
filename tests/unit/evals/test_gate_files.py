"""Which results are judged, and what a file that is none says."""

from pathlib import Path

import msgspec
import pytest

from gate_helpers import AGENT, results
from midwatch.errors import MidwatchError
from midwatch_services.evals import gate_files
from midwatch_services.evals.outcome import Results


def write(folder: Path, found: Results, name: str | None = None) -> Path:
    path = folder / AGENT / "results" / (name or f"{found.version}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(found))
    return path


def test_the_newest_is_by_the_time_that_the_results_say_in_whatever_zone(tmp_path: Path) -> None:
    newest = write(tmp_path, results("p", "a", at="2026-11-22T01:30:00-02:00"))
    write(tmp_path, results("p", "b", at="2026-11-22T02:00:00Z"))
    write(tmp_path, results("p", "c", at="2026-11-22T04:00:00+02:00"))
    assert gate_files.newest(tmp_path, AGENT) == newest


def test_a_version_is_found_by_what_the_file_says_not_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, results("p", "other"), "v1.json")
    there = write(tmp_path, results("p", "feature/x"), "feature-x.json")
    assert gate_files.of_version(tmp_path, AGENT, "feature/x") == there
    with pytest.raises(gate_files.NoResults, match="no results of version 'v1'"):
        gate_files.of_version(tmp_path, AGENT, "v1")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is no file of results"),
        (b"[]", "is no file of results"),
        (b'{"agent": "refund-desk"', "is no file of results"),
        (b'{"agent": "refund-desk", "version": "v"}', "missing required field"),
        (b"\xff\xfe", "is no file of results"),
        (b"[" * 100_000, "is no file of results"),
        (msgspec.json.encode(results("p", agent="other-desk")), "is of agent 'other-desk', not of 'refund-desk'"),
        (msgspec.json.encode(results("p", schema="midwatch.eval/9")), "is of schema 'midwatch.eval/9'"),
        (msgspec.json.encode(results(results("p").results * 2)), "has the case 'c0' twice"),
        (msgspec.json.encode(results("p", at="soon")), "which is no time"),
        (msgspec.json.encode(results("p", cost_usd="<b>")), "which is no money"),
        (msgspec.json.encode(results("p", cost_usd="-1")), "which is no money"),
        (msgspec.json.encode(results("p", cost_usd="NaN")), "which is no money"),
        (msgspec.json.encode(results("p", cost_usd="1e999999")), "which is no money"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_results_is_named_with_the_mend(tmp_path: Path, body: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(body)
    with pytest.raises(gate_files.BadResults) as error:
        gate_files.read(path, AGENT)
    text = str(error.value)
    assert said in text
    assert text.startswith(f"{path} ")
    assert text.endswith("replay again with `midwatch eval run refund-desk`.")
    assert "\n" not in text


def test_a_file_that_cannot_be_read_may_be_the_newest_and_stops_the_choice(tmp_path: Path) -> None:
    write(tmp_path, results("p", "a"))
    (tmp_path / AGENT / "results" / "z.json").write_text("{")
    with pytest.raises(gate_files.BadResults, match=r"z\.json is no file of results"):
        gate_files.newest(tmp_path, AGENT)


def test_without_results_it_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(gate_files.NoResults, match="replay with `midwatch eval run refund-desk` first"):
        gate_files.newest(tmp_path, AGENT)


def test_the_baseline_is_the_version_that_the_file_names(tmp_path: Path) -> None:
    assert gate_files.baseline(tmp_path, AGENT) is None
    write(tmp_path, results("p", "v1"))
    path = gate_files.set_baseline(tmp_path, AGENT, "v1")
    assert (path.read_text(), gate_files.baseline(tmp_path, AGENT)) == ("v1\n", "v1")
    with pytest.raises(gate_files.NoResults):
        gate_files.set_baseline(tmp_path, AGENT, "v2")
    assert gate_files.baseline(tmp_path, AGENT) == "v1"


@pytest.mark.parametrize("text", [b"", b"\n\n", b"a\nb\n", b"\xff"])
def test_a_baseline_that_names_no_version_is_an_error_and_not_no_baseline(tmp_path: Path, text: bytes) -> None:
    (tmp_path / AGENT).mkdir()
    (tmp_path / AGENT / "baseline").write_bytes(text)
    with pytest.raises(MidwatchError, match="write it with `midwatch eval baseline refund-desk VERSION`"):
        gate_files.baseline(tmp_path, AGENT)
