"""A PostgreSQL of one's own, from Debian's binaries, for a test session or a command."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg


class NotInstalled(Exception):
    """There are no server binaries on this machine."""


class Server:
    """One server, which a test may stop, start, pause and wake."""

    def __init__(self, binaries: Path, folder: Path, port: int, *, durable: bool) -> None:
        self.url = f"postgresql://midwatch@127.0.0.1:{port}"
        self.data = folder / "data"
        self._binaries, self._log, self._port = binaries, folder / "log", port
        self._user: dict[str, Any] = {}
        self._quick = [] if durable else ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:  # initdb refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def create(self) -> None:
        create = ["initdb", "-D", str(self.data), "-U", "midwatch", "-A", "trust", "-E", "UTF8", "--no-sync"]
        self._run(*create, check=True)

    def start(self) -> None:
        """Returns when it answers."""
        serve = ["-D", str(self.data), "-h", "127.0.0.1", "-p", str(self._port), "-k", ""]
        for setting in self._quick:
            serve += ["-c", setting]
        with self._log.open("ab") as log:
            command = [self._binaries / "postgres", *serve]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._user)
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(f"{self.url}/postgres").close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise AssertionError(self._log.read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """As an operator stops it: connections are ended, nothing is lost."""
        self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "stop")
        if self._process:
            self._process.wait(30)

    def pause(self) -> None:
        """Stops the server and every session's process where they are: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Each by itself, outside of a transaction."""
        with psycopg.connect(f"{self.url}/{database}", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        first = self._process.pid
        found = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True, check=False)
        for pid in (first, *map(int, found.stdout.split())):
            os.kill(pid, number)

    def _run(self, program: str, *arguments: str, check: bool = False) -> None:
        subprocess.run([self._binaries / program, *arguments], check=check, capture_output=True, cwd="/", **self._user)


@contextmanager
def server(*, durable: bool = True) -> Iterator[Server]:
    """A running server, gone afterwards. One that is not `durable` loses what it holds should the machine die, and is
    quicker. Raises NotInstalled."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise NotInstalled("no PostgreSQL under /usr/lib/postgresql: install the package postgresql")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/midwatch-postgres-XXXXXX"], text=True).strip())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Server(found[-1].parent, folder, port, durable=durable)
    one.create()
    try:
        one.start()
        yield one
    finally:
        one.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(*, durable: bool = True) -> Iterator[str]:
    """Address of a running `server`, without a database's name."""
    with server(durable=durable) as one:
        yield one.url
