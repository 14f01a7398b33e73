"""The disk of the run log's database is full, and is freed."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import postgres
import stack as whole
from run_log import assert_as_undisturbed, caught_up, dead, errors_of, events, fill
from stack import Stack

pytestmark = pytest.mark.chaos

LEFT = 4_000_000  # bytes that are free when the events come
LATE = 60.0  # seconds in which the logger must have caught up
Figure = Callable[[str, float, str, float], None]


class Disk:
    """A small file system, and a file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        free = shutil.disk_usage(self.folder).free - LEFT
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free)

    def free(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Skips the test where this process may mount nothing."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "midwatch-test", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"a disk can be full only where a test may mount one: {mount.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def filled_and_freed(stack: Stack, disk: Disk, said: str) -> tuple[int, float]:
    """How many events came, and how long after the disk was freed they were all in the log."""
    logger = await stack.start("logger")
    source = events()
    count = await fill(stack.client, itertools.islice(source, 2_000))
    await caught_up(stack)
    disk.fill()
    count += await fill(stack.client, itertools.islice(source, 20_000))
    complaint = await errors_of(logger, within=60)
    assert said in complaint
    assert len(complaint.splitlines()) == 1
    count += await fill(stack.client, itertools.islice(source, 2_000))
    disk.free()
    seconds = await caught_up(stack)
    await logger.ready()
    assert await dead(stack) == 0
    await assert_as_undisturbed(stack, count)
    return count, seconds


async def test_a_full_disk_below_sqlite_costs_no_event(tmp_path: Path, figure: Figure) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with whole.running(tmp_path, f"sqlite:///{disk.folder}/logger.db") as stack:
            count, seconds = await filled_and_freed(stack, disk, "database or disk is full")
    figure(f"SQLite's disk full, {count:,} events: caught up after", seconds, "s", LATE)


async def test_a_full_disk_below_a_tablespace_costs_no_event(tmp_path: Path, figure: Figure) -> None:
    with small_disk(tmp_path / "disk") as disk, postgres_or_skip() as server:
        place = disk.folder / "tables"
        place.mkdir()
        if os.geteuid() == 0:
            for folder in (place, *tmp_path.parents[:2], tmp_path):
                folder.chmod(0o755)
            shutil.chown(place, "postgres")
        server.execute(f"CREATE TABLESPACE small LOCATION '{place}'", "CREATE DATABASE log TABLESPACE small")
        async with whole.running(tmp_path, f"{server.url}/log") as stack:
            count, seconds = await filled_and_freed(stack, disk, "No space left on device")
    figure(f"PostgreSQL's tablespace full, {count:,} events: caught up after", seconds, "s", LATE)


@contextmanager
def postgres_or_skip() -> Iterator[postgres.Server]:
    try:
        with postgres.server() as server:
            yield server
    except postgres.NotInstalled as error:
        pytest.skip(str(error))
