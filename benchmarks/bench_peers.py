"""Arize Phoenix and MLflow, fed the same real runs over OTLP, beside our run log: how much is stored a second.

`make bench-peers`, or `python benchmarks/bench_peers.py [--json] [--spans N] [--keep FOLDER]`. Each peer is installed
from the package index into a virtual environment of its own in a temporary folder (or in `--keep`, to be found again),
runs on SQLite with its own defaults (MLflow with one process, as we do), and is fed by eight connections. One that does
not install is left out, with a word why.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_logger import consume
from load import QUICK, Message, connect, fill
from peer_spans import RUNS, again, body_of, real_runs

from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.nats_server import start_nats
from midwatch.runtime.settings import Settings

CONNECTIONS = 8
STARTS_WITHIN = 180.0  # seconds
STORES_WITHIN = 600.0  # seconds
OURS = 60_000  # events


@dataclass(frozen=True)
class Peer:
    """How one is installed, started and asked. `command`: its program and words, `{}` for port and folder."""

    name: str
    package: str
    command: tuple[str, ...]
    environment: dict[str, str]
    headers: dict[str, str]
    healthy: str
    database: str


PEERS = (
    Peer(
        "Arize Phoenix", "arize-phoenix", ("phoenix", "serve"),
        {"PHOENIX_PORT": "{port}", "PHOENIX_GRPC_PORT": "0", "PHOENIX_HOST": "127.0.0.1",
         "PHOENIX_WORKING_DIR": "{folder}", "PHOENIX_TELEMETRY_ENABLED": "false"},
        {}, "/healthz", "phoenix.db",
    ),
    Peer(
        "MLflow", "mlflow",
        ("mlflow", "server", "--backend-store-uri", "sqlite:///{folder}/mlflow.db", "--host", "127.0.0.1", "--port",
         "{port}", "--workers", "1"),
        {"MLFLOW_DISABLE_TELEMETRY": "true"}, {"x-mlflow-experiment-id": "0"}, "/health", "mlflow.db",
    ),
)  # fmt: skip


def install(peer: Peer, folder: Path) -> tuple[Path, str] | None:
    """The folder of its programs, and its version; None where it does not install."""
    place = folder / peer.package
    if not (place / "bin" / peer.command[0]).exists():
        say(f"installing {peer.package} …")
        venv.create(place, with_pip=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer.package]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["pip ended without a word"]
            say(f"left out: {peer.name}, which does not install here: {last[0]}")
            return None
    which = f"from importlib.metadata import version; print(version({peer.package!r}))"
    found = subprocess.run([place / "bin" / "python", "-c", which], capture_output=True, text=True, check=True)
    return place / "bin", found.stdout.strip()


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class Server:
    """One peer that runs."""

    def __init__(self, peer: Peer, programs: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = {"port": port, "folder": folder}
        self._peer, self._folder, self.url = peer, folder, f"http://127.0.0.1:{port}"
        environment = {name: value.format(**given) for name, value in peer.environment.items()}
        # Phoenix takes 0 for its gRPC port as a port: give it one that is free.
        if environment.get("PHOENIX_GRPC_PORT") == "0":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                environment["PHOENIX_GRPC_PORT"] = str(free.getsockname()[1])
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [programs / peer.command[0], *(word.format(**given) for word in peer.command[1:])], stdout=log,
                stderr=log, cwd=folder, start_new_session=True,
                env={**_without_python_path(), **environment, "PATH": path},
            )  # fmt: skip

    def wait(self) -> float:
        """How long it took until it was healthy."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < STARTS_WITHIN and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + self._peer.healthy, timeout=2):
                    return time.perf_counter() - begin
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"{self._peer.name} did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def post(self, body: bytes) -> None:
        """Sends one body, again while the server says that it has too much to do."""
        headers = {"Content-Type": "application/x-protobuf", **self._peer.headers}
        while True:
            request = urllib.request.Request(f"{self.url}/v1/traces", data=body, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    answer.read()
                    return
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    raise
            except ConnectionError:  # an exporter tries again too; the same span ids are the same spans
                if self._process.poll() is not None:
                    raise
            time.sleep(0.05)

    def stored(self) -> int:
        """Spans that a query finds."""
        try:
            connection = sqlite3.connect(f"file:{self._folder / self._peer.database}?mode=ro", uri=True, timeout=10)
            with connection:
                return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    def memory(self) -> float:
        """Of all of its processes, in MB."""
        own = os.getpgid(self._process.pid)
        listed = subprocess.run(["ps", "-e", "-o", "pgid=,rss="], capture_output=True, text=True, check=True)
        pairs = (line.split() for line in listed.stdout.splitlines())
        return sum(int(rss) for group, rss in pairs if int(group) == own) / 1024

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _without_python_path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def feed(server: Server, bodies: Sequence[bytes], spans: int) -> tuple[float, float]:
    """Seconds until every span is found by a query, and the greatest memory meanwhile."""
    todo, lock = iter(bodies), threading.Lock()
    failed: list[Exception] = []

    def work() -> None:
        while True:
            with lock:
                body = next(todo, None)
            if body is None or failed:
                return
            try:
                server.post(body)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    begin, memory = time.perf_counter(), 0.0
    for thread in threads:
        thread.start()
    while server.stored() < spans and not failed:
        memory = max(memory, server.memory())
        if time.perf_counter() - begin > STORES_WITHIN:
            failed.append(TimeoutError(f"{server.stored()} of {spans} spans after {STORES_WITHIN:g} s"))
        time.sleep(0.1)
    took = time.perf_counter() - begin
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return took, memory


def measure_peer(peer: Peer, runs: Sequence[Sequence[Message]], keep: Path) -> dict[str, Any] | None:
    """What it stores a second; None where it is left out."""
    installed = install(peer, keep)
    if installed is None:
        return None
    made = [body_of(run) for run in runs]
    spans = sum(count for _, count in made)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(peer, installed[0], Path(folder))
        try:
            started = server.wait()
            took, memory = feed(server, [body for body, _ in made], spans)
        finally:
            server.end()
    say(f"{peer.name} {installed[1]}: started in {started:.1f} s, {spans:,} spans in {took:.1f} s, {memory:,.0f} MB")
    return {
        "name": f"{peer.name} {installed[1]}, SQLite", "spans": spans / took, "runs": len(runs) / took,
        "memory": memory, "start": started,
    }  # fmt: skip


async def measure_ours(count: int) -> tuple[dict[str, Any], list[list[Message]]]:
    """The same of our logger, and the real runs that everyone is given."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        async with await start_nats(home / "nats", sync_interval="always") as server:
            client = await connect(server.url)
            settings = Settings(home=home, nats_url=server.url)
            js = client.jetstream()
            await topology.apply(js, settings)
            environment = {"NATS_URL": server.url, "MIDWATCH_HOME": folder, "MIDWATCH_HTTP_PORT": "0"}
            runs = await real_runs(client, environment)
            await js.purge_stream(subjects.RUNS)
            messages, replayed = [], 0
            for run in itertools.cycle(runs):
                if len(messages) >= count:
                    break
                messages += again(run)
                replayed += 1
            await fill(client, messages)
            rate = await consume(client, subjects.LOGGER, "logger", len(messages), environment)
            await client.close()
    return {"events": rate, "runs": rate * replayed / len(messages)}, runs


def rows(ours: dict[str, Any], peers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each peer beside us."""
    for peer in peers:
        row = {"name": "the same real runs, stored, SQLite", "target": "", "peer": peer["name"]}
        yield {**row, "value": ours["runs"], "unit": "runs/s", "peer_value": peer["runs"],
               "ratio": ours["runs"] / peer["runs"]}  # fmt: skip
        yield {**row, "value": ours["events"], "unit": "events/s", "peer": f"{peer['name']}, spans/s",
               "peer_value": peer["spans"], "ratio": ours["events"] / peer["spans"]}  # fmt: skip
        yield {**row, "name": f"{peer['name']}: memory", "value": peer["memory"], "unit": "MB",
               "peer": "its start, s", "peer_value": peer["start"]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--spans", type=int, default=300 if QUICK else 5_000, metavar="N", help="for each peer")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the peers are, or are to be, installed")
    options = parser.parse_args()
    if not RUNS.is_file():
        say(f"left out: the real runs are not in {RUNS}")
        return 0
    ours, runs = asyncio.run(measure_ours(3_000 if QUICK else OURS))
    say(f"Midwatch: {ours['events']:,.0f} events/s, {ours['runs']:,.0f} runs/s")
    some: list[list[Message]] = []
    while sum(map(len, some)) < options.spans:
        some.append(again(runs[len(some) % len(runs)]))
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure_peer(peer, some, options.keep or Path(scratch)) for peer in PEERS]
    for row in rows(ours, [one for one in found if one]):
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
