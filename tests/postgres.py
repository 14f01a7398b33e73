"""A PostgreSQL of one's own, from Debian's binaries, for a test session or a command."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


class NotInstalled(Exception):
    """There are no server binaries on this machine."""


@contextmanager
def cluster(*, durable: bool = True) -> Iterator[str]:
    """Address of a running cluster, without a database's name; it is gone afterwards. One that is not `durable` loses
    what it holds should the machine die, and is quicker. Raises NotInstalled."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise NotInstalled("no PostgreSQL under /usr/lib/postgresql: install the package postgresql")
    bin_ = found[-1].parent
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/midwatch-postgres-XXXXXX"], text=True).strip())
    user: list[str | Path] = []
    if os.geteuid() == 0:  # initdb refuses to run as root
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    create = [bin_ / "initdb", "-D", data, "-U", "midwatch", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run([*user, *create], check=True, capture_output=True, cwd="/")
    serve: list[str | Path] = [bin_ / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    if not durable:
        serve += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*user, *serve], stdout=log, stderr=log, cwd="/")
    try:
        yield _answering(f"postgresql://midwatch@127.0.0.1:{port}", folder / "log")
    finally:
        subprocess.run([*user, bin_ / "pg_ctl", "-D", data, "-m", "fast", "stop"], cwd="/", capture_output=True)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answering(url: str, log: Path) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(f"{url}/postgres").close()
            return url
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.05)
