"""A lock file keeps a second process out, and nothing else keeps one from starting."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from midwatch.runtime.lock_file import Holder, LockFile


def test_one_has_it_until_it_leaves_and_is_named_to_the_second(tmp_path: Path) -> None:
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    assert first.take() is None
    holder = second.take()
    assert holder == Holder(socket.gethostname(), os.getpid())
    assert holder.stop() == f"stop it with `kill {os.getpid()}`"
    first.leave()
    assert second.take() is None


def test_no_kill_is_named_for_a_process_of_another_host_or_one_that_is_gone(tmp_path: Path) -> None:
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    assert first.take() is None
    (tmp_path / "lock").write_text("7 web-2\n")
    holder = second.take()
    assert holder is not None
    assert (holder.who(), holder.stop()) == (" (pid 7 on web-2)", "stop it where it runs")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for stands in (f"{gone.pid} {socket.gethostname()}\n", ""):
        (tmp_path / "lock").write_text(stands)
        assert second.take() == Holder()


def test_a_volume_without_locks_keeps_nobody_out_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)  # as NFS without lockd does
    with structlog.testing.capture_logs() as logs:
        assert LockFile(tmp_path / "lock").take() is None
        assert LockFile(tmp_path / "lock").take() is None
    assert [(one["event"], one["why"]) for one in logs] == [("not_locked", "No locks available")] * 2


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder to which nobody's rights but those of its files matter, not even where tests are run as root."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        home = Path(name) / "state"
        home.mkdir()
        (home / "console.lock").write_text("1 elsewhere\n")
        yield home
        if is_root:
            os.seteuid(0)
        home.chmod(0o700)


@pytest.mark.parametrize(("mode", "file", "warnings"), [(0o555, 0o444, 0), (0o777, 0o000, 0), (0o555, 0o000, 1)])
def test_a_file_that_another_user_left_keeps_nobody_from_starting(
    folder: Path, mode: int, file: int, warnings: int
) -> None:
    lock = folder / "console.lock"
    lock.chmod(file)
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with structlog.testing.capture_logs() as logs:
        assert LockFile(lock).take() is None
    assert [one["event"] for one in logs] == ["not_locked"] * warnings
    if not warnings:
        assert LockFile(lock).take() is not None
