"""`midwatch demo` as a newcomer runs it: a process of its own, nothing set up, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS = 7
COMMAND = [sys.executable, "-m", "midwatch_services.cli", "demo"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The demo's state folder and whatever else it leaves are in `folder`."""
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "160", **more}


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that have to do with `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if process.name != str(os.getpid()) and str(folder).encode() in words:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_every_step_is_seen_and_nothing_is_left(tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, env=environment(tmp_path), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  seen  ") == STEPS
    assert "cost-watchdog/loop_no_new_state stopped it at $0." in done.stdout
    assert "contained" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_ctrl_c_ends_it_and_cleans_up(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        COMMAND, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert demo.stdout is not None
    for line in demo.stdout:
        if "T-07 asks" in line:
            break
    demo.send_signal(signal.SIGINT)
    began = time.monotonic()
    rest, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, rest
    assert "seen" not in rest
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_a_database_that_does_not_answer_is_named_at_once(tmp_path: Path) -> None:
    nowhere = "postgresql://someone:secret@127.0.0.1:1/nowhere"
    done = subprocess.run(
        [*COMMAND, "--database", nowhere], env=environment(tmp_path), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "midwatch: the database at postgresql+psycopg://someone:***@127.0.0.1:1/nowhere does not"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_kept_is_named_last_with_what_to_type(tmp_path: Path) -> None:
    command = [*COMMAND, "--keep", "--database", "postgresql://someone:secret@127.0.0.1:1/nowhere"]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=30)
    [home] = tmp_path.iterdir()
    assert done.stdout.splitlines()[-1] == f"MIDWATCH_HOME={home} midwatch up"
