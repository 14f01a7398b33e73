"""What the spool promises on a sound disk: order, durability of the cursor, damage skipped, the dead taken over."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from midwatch import spool_store
from midwatch.spool import Record, Spool

SAID = "midwatch.run.refund-desk.said"


def fill(spool: Spool, first: int, last: int, size: int = 100) -> None:
    """Appends events `first` to `last`, both included."""
    for number in range(first, last + 1):
        assert spool.append(SAID, f"id-{number}", None, b"x" * size)


def ids(records: list[Record]) -> list[int]:
    return [int(record.id.removeprefix("id-")) for record in records]


def take_all(spool: Spool) -> list[int]:
    """Reads and acknowledges until nothing is pending."""
    taken: list[int] = []
    while spool.pending:
        records = spool.read(1000, 1 << 20)
        taken += ids(records)
        spool.acknowledge(len(records))
    return taken


def segments(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.seg"))


def test_an_event_comes_back_as_it_was_appended(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "pod-7")
    assert spool.append(SAID, "id-ü", b"00-ab-cd-01", b'{"a":1}')
    assert spool.append("midwatch.run.b.started", "2", None, b"")
    assert spool.read(10, 1000) == [
        Record(SAID, "id-ü", "00-ab-cd-01", b'{"a":1}'),
        Record("midwatch.run.b.started", "2", None, b""),
    ]


def test_reading_repeats_until_acknowledged(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 5)
    assert ids(spool.read(3, 10_000)) == [1, 2, 3]
    assert ids(spool.read(3, 10_000)) == [1, 2, 3]
    spool.acknowledge(2)
    assert spool.pending == 3
    assert ids(spool.read(10, 10_000)) == [3, 4, 5]
    spool.acknowledge(3)
    assert spool.read(10, 10_000) == []
    assert spool.pending == 0


def test_a_record_larger_than_the_byte_limit_is_still_read(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 2, size=50_000)
    assert ids(spool.read(10, 1000)) == [1]
    spool.acknowledge(1)
    assert ids(spool.read(10, 1000)) == [2]


def test_a_restart_goes_on_where_it_was_acknowledged(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 5)
    spool.read(3, 10_000)
    spool.acknowledge(3)
    spool.close()
    again = Spool.open(tmp_path, "a")
    assert again.pending == 2
    fill(again, 6, 7)
    assert take_all(again) == [4, 5, 6, 7]


@pytest.mark.parametrize("cursor", [b"", b"\x07" * 20, b"short"])
def test_a_broken_cursor_repeats_events_rather_than_missing_any(tmp_path: Path, cursor: bytes) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 4)
    spool.read(2, 10_000)
    spool.acknowledge(2)
    spool.close()
    (tmp_path / "a" / "cursor").write_bytes(cursor)
    assert take_all(Spool.open(tmp_path, "a")) == [1, 2, 3, 4]


def test_a_cursor_ahead_of_what_the_disk_kept_hides_nothing_new(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 9)
    spool.read(8, 10_000)
    spool.acknowledge(8)
    spool.close()
    segments(tmp_path)[0].unlink()  # power failed: the cursor reached the disk, the segment did not
    again = Spool.open(tmp_path, "a")
    fill(again, 10, 11)
    assert take_all(again) == [10, 11]


def test_acknowledged_segments_leave_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_store, "SEGMENT_BYTES", 1000)
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 50)
    before = len(segments(tmp_path))
    assert before >= 5
    assert ids(spool.read(25, 1 << 20)) == list(range(1, 26))
    spool.acknowledge(25)
    assert len(segments(tmp_path)) < before - 1
    assert take_all(spool) == list(range(26, 51))
    assert len(segments(tmp_path)) == 1
    spool.close()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("cut", [1, 60, 145])
def test_a_torn_tail_is_skipped_and_what_follows_is_read(tmp_path: Path, cut: int) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 3)
    spool.close()
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    again = Spool.open(tmp_path, "a")
    fill(again, 4, 5)
    assert take_all(again) == [1, 2, 4, 5]
    assert (again.lost, again.damaged) == (0, 0)  # the append of a torn record never returned


@pytest.mark.parametrize("damage", [b"?", b"?" * 30, b"\x00" * 150])
@pytest.mark.parametrize("inside", [0, 5, 100])
def test_damage_in_the_middle_is_skipped_and_counted_once(tmp_path: Path, damage: bytes, inside: int) -> None:
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 6)
    (file,) = segments(tmp_path)
    content = bytearray(file.read_bytes())
    length = len(content) // 6
    at = 2 * length + inside  # the third record, and with the longest of these the fourth too
    content[at : at + len(damage)] = damage
    file.write_bytes(content)
    assert {1, 2, 5, 6} <= set(ids(spool.read(10, 10_000)))
    assert take_all(spool)[-2:] == [5, 6]
    assert (spool.lost, spool.damaged) == (1, 1)


def test_a_segment_of_noise_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_store, "SEGMENT_BYTES", 500)
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 12)
    segments(tmp_path)[1].write_bytes(b"\x93" * 700)
    taken = take_all(spool)
    assert taken[:2] == [1, 2]
    assert taken[-2:] == [11, 12]


def test_threads_append_side_by_side(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    threads = [
        threading.Thread(target=fill, args=(spool, thread * 1000, thread * 1000 + 299)) for thread in range(8)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = take_all(spool)
    for worker in range(8):
        assert [n for n in taken if n // 1000 == worker] == list(range(worker * 1000, worker * 1000 + 300))
    assert len(taken) == 2400


def test_it_wakes_once_for_each_time_it_was_asked(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    calls: list[int] = []
    spool.wake_once(lambda: calls.append(spool.pending))
    fill(spool, 1, 3)
    assert calls == [1]
    spool.wake_once(lambda: calls.append(spool.pending))
    fill(spool, 4, 4)
    assert calls == [1, 4]


def test_a_living_process_keeps_its_spool_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    living, dead, reader = (Spool.open(tmp_path, name) for name in ("living", "dead", "reader"))
    fill(living, 1, 2)
    fill(dead, 3, 4)
    dead.close()
    (adopted,) = reader.adopt()
    assert reader.adopt() == []
    assert take_all(adopted) == [3, 4]
    adopted.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["living", "reader"]
    assert living.pending == 2


def test_two_living_processes_of_one_name_get_a_folder_each(tmp_path: Path) -> None:
    one, two = Spool.open(tmp_path, "pod"), Spool.open(tmp_path, "pod")
    fill(one, 1, 1)
    fill(two, 2, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pod", "pod~2"]
    assert (take_all(one), take_all(two)) == ([1], [2])


@pytest.mark.parametrize("name", ["../../etc", "", "..", "refused", "a/b\n"])
def test_no_instance_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    spool = Spool.open(tmp_path / "spool", name)
    fill(spool, 1, 1)
    (file,) = segments(tmp_path)
    assert file.parent.parent == tmp_path / "spool"
    assert file.parent.name != "refused"


def test_a_refused_event_is_kept_readable_beside_the_spools(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    spool.refuse(Record(SAID, "7", None, b'{"a":1}'), "it is too large")
    spool.close()
    line = json.loads((tmp_path / "refused" / "a.jsonl").read_text())
    assert line == {"subject": SAID, "id": "7", "reason": "it is too large", "body": '{"a":1}'}
    assert Spool.open(tmp_path, "b").adopt() == []


def test_an_event_survives_kill_nine_as_soon_as_append_returned(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from midwatch.spool import Spool\n"
        "spool = Spool.open(Path(sys.argv[1]), 'killed')\n"
        "for n in range(300): spool.append('midwatch.run.a.said', f'id-{n}', None, b'x' * 2000)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    (adopted,) = Spool.open(tmp_path, "next").adopt()
    assert take_all(adopted) == list(range(300))
