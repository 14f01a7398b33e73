"""What the spool promises when the disk fails and when processes fork: the host notices nothing, nothing is hidden."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch import spool_store
from midwatch.spool import Record, Spool

SAID = "midwatch.run.refund-desk.said"


def fill(spool: Spool, first: int, last: int, size: int = 100) -> None:
    for number in range(first, last + 1):
        assert spool.append(SAID, f"id-{number}", None, b"x" * size)


def ids(records: list[Record]) -> list[int]:
    return [int(record.id.removeprefix("id-")) for record in records]


def take_all(spool: Spool) -> list[int]:
    taken: list[int] = []
    while spool.pending:
        records = spool.read(1000, 1 << 20)
        taken += ids(records)
        spool.acknowledge(len(records))
    return taken


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder that cannot be one, because a file is in its place."""
    folder = tmp_path / "spool"
    folder.write_text("in the way")
    return folder


def test_a_broken_disk_is_named_and_events_are_kept_in_memory(broken: Path) -> None:
    spool = Spool.open(broken, "a")
    fill(spool, 1, 3)
    assert spool.error is not None
    assert str(broken) in spool.error
    assert "\n" not in spool.error
    assert (spool.pending, spool.lost) == (3, 0)
    assert take_all(spool) == [1, 2, 3]


def test_it_goes_back_to_the_disk_by_itself(broken: Path) -> None:
    spool = Spool.open(broken, "a")
    fill(spool, 1, 3)
    spool.sync()
    assert spool.error is not None
    broken.unlink()
    spool.sync()
    assert spool.error is None
    fill(spool, 4, 5)
    spool.close()
    assert take_all(Spool.open(broken, "a")) == [1, 2, 3, 4, 5]


def test_an_append_alone_finds_the_disk_that_is_back(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_store, "RETRY", 0.0)
    spool = Spool.open(broken, "a")
    fill(spool, 1, 2)
    broken.unlink()
    fill(spool, 3, 3)
    assert spool.error is None
    assert sum(path.stat().st_size for path in broken.rglob("*.seg")) > 300


def test_memory_is_bounded_and_what_is_beyond_is_counted(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_store, "MEMORY_RECORDS", 5)
    spool = Spool.open(broken, "a")
    fill(spool, 1, 5)
    assert not spool.append(SAID, "id-6", None, b"")
    assert spool.lost == 1
    assert take_all(spool) == [1, 2, 3, 4, 5]
    fill(spool, 7, 7)  # there is room again
    monkeypatch.setattr(spool_store, "MEMORY_BYTES", 1000)
    assert not spool.append(SAID, "id-8", None, b"x" * 1000)
    assert spool.lost == 2


def test_what_was_read_from_memory_is_acknowledged_on_disk(broken: Path) -> None:
    spool = Spool.open(broken, "a")
    fill(spool, 1, 6)
    assert ids(spool.read(2, 10_000)) == [1, 2]
    spool.acknowledge(2)
    assert ids(spool.read(2, 10_000)) == [3, 4]
    broken.unlink()
    spool.sync()  # what was read moves to the disk before it is acknowledged
    spool.acknowledge(1)
    fill(spool, 7, 7)
    assert take_all(spool) == [4, 5, 6, 7]
    assert (spool.lost, spool.damaged) == (0, 0)


def test_a_full_disk_loses_nothing_and_order_is_kept(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from midwatch.spool import Spool\n"
        "spool = Spool.open(Path(sys.argv[1]), 'a')\n"
        "def fill(first, last):\n"
        "    for n in range(first, last): assert spool.append('s', f'id-{n}', None, b'x' * 2000)\n"
        "unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_500, unlimited[1]))\n"
        "fill(0, 200)\n"
        "assert spool.error and spool.lost == 0 and spool.pending == 200, (spool.error, spool.lost, spool.pending)\n"
        "first = spool.read(20, 1 << 20); assert [r.id for r in first] == [f'id-{n}' for n in range(20)]\n"
        "spool.acknowledge(10)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)\n"
        "spool.sync(); assert spool.error is None, spool.error\n"
        "fill(200, 210); assert spool.pending == 200, spool.pending\n"
        "spool.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    spool = Spool.open(tmp_path, "a")
    assert take_all(spool) == list(range(10, 210))
    assert (spool.lost, spool.damaged) == (0, 0)


def test_the_size_limit_counts_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_SPOOL_MAX_BYTES", "1500")
    monkeypatch.setattr(spool_store, "SEGMENT_BYTES", 500)
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 20)
    assert "MIDWATCH_SPOOL_MAX_BYTES" in (spool.error or "")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.seg")) <= 1500
    assert take_all(spool) == list(range(1, 21))
    spool.sync()
    assert spool.error is None
    fill(spool, 21, 22)
    assert take_all(spool) == [21, 22]


def test_a_size_limit_that_is_no_number_is_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_SPOOL_MAX_BYTES", "lots")
    fill(Spool.open(tmp_path, "a"), 1, 3)


def test_a_deleted_folder_comes_back_with_what_was_in_it(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", "a")
    fill(spool, 1, 4)
    spool.read(1, 1000)
    spool.acknowledge(1)
    shutil.rmtree(tmp_path / "spool")
    fill(spool, 5, 5)
    spool.sync()
    assert spool.error is None
    fill(spool, 6, 6)
    assert ids(spool.read(10, 10_000)) == [2, 3, 4, 5, 6]
    spool.close()
    assert take_all(Spool.open(tmp_path / "spool", "a")) == [2, 3, 4, 5, 6]


def test_reading_notices_a_deleted_folder_too(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool", "a")
    fill(spool, 1, 3)
    shutil.rmtree(tmp_path / "spool")
    assert take_all(spool) == [1, 2, 3]
    assert "deleted" in (spool.error or "")


def test_events_in_a_deleted_older_segment_are_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_store, "SEGMENT_BYTES", 500)
    spool = Spool.open(tmp_path, "a")
    fill(spool, 1, 12)  # four to a segment: 138 bytes of frame and content each
    spool.sync()
    sorted(tmp_path.rglob("*.seg"))[1].unlink()
    assert take_all(spool) == [1, 2, 3, 4, 9, 10, 11, 12]
    assert spool.lost == 4


@pytest.mark.parametrize(("subject", "event_id"), [("s" * 70_000, "1"), ("\ud800", "1"), ("s", "i" * 70_000)])
def test_an_event_that_cannot_be_framed_is_counted_and_never_raises(
    tmp_path: Path, subject: str, event_id: str
) -> None:
    spool = Spool.open(tmp_path, "a")
    assert not spool.append(subject, event_id, None, b"")
    assert spool.lost == 1
    assert "could not be recorded" in (spool.error or "")


def test_a_closed_spool_takes_nothing_and_says_so(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "a")
    spool.close()
    spool.close()
    assert not spool.append(SAID, "id-1", None, b"")
    assert spool.lost == 1
    assert "closed" in (spool.error or "")


FORK = """
import os, sys, time
from pathlib import Path
from midwatch.spool import Spool
folder = Path(sys.argv[1])
spool = Spool.open(folder, "pre")
for n in range(3): assert spool.append("s", f"id-{n}", None, b"parent")
spool.wake_once(lambda: print("woken by", os.getpid(), flush=True))
child = os.fork()
if child == 0:
    assert (spool.pending, spool.lost, spool.error) == (0, 0, None), "the child has the parent's events"
    for n in range(3, 5): assert spool.append("s", f"id-{n}", None, b"child")
    assert spool.pending == 2
    CHILD
    os._exit(0)
PARENT
"""


def test_a_forked_child_writes_into_a_spool_of_its_own(tmp_path: Path) -> None:
    parent = (
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert spool.pending == 3\n"
        "(left,) = Spool.open(folder, 'other').adopt()\n"  # the child's; ours is still held, whatever the child closed
        "assert [(r.id, r.body) for r in left.read(9, 999)] == [('id-3', b'child'), ('id-4', b'child')]\n"
        "assert [r.id for r in spool.read(9, 999)] == ['id-0', 'id-1', 'id-2']\n"
    )
    script = FORK.replace("CHILD", "").replace("PARENT", parent)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == ""  # the child woke nobody in its parent's name


def test_a_child_that_lives_on_does_not_hold_its_dead_parents_spool(tmp_path: Path) -> None:
    script = FORK.replace("CHILD", "os.close(1); time.sleep(60)")
    script = script.replace("PARENT", "print(child, flush=True); os.kill(os.getpid(), 9)")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, stdout=subprocess.PIPE, text=True)
    try:
        adopted = Spool.open(tmp_path, "other").adopt()
        assert [record.id for spool in adopted for record in spool.read(9, 999)] == ["id-0", "id-1", "id-2"]
    finally:
        os.kill(int(done.stdout), 9)
