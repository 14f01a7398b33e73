"""Installs Midwatch without extras into an environment of its own and holds the import to its promise.

Run by `make base-install`; it needs the network or a cache for nats-py and msgspec.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER_ONLY = (
    "alembic", "faststream", "genai_prices", "midwatch_services", "opentelemetry", "prometheus_client", "psycopg",
    "pydantic", "rich", "ruamel", "sqlalchemy", "sqlmodel", "structlog", "typer", "uvicorn",
)  # fmt: skip
CHECK = f"""
import importlib.util, sys
from midwatch import Halted, MidwatchError, connect
import midwatch.blocking, midwatch.testing
loaded = sorted(name for name in {SERVER_ONLY!r} if name in sys.modules)
assert not loaded, f"importing midwatch loads {{loaded}}"
present = sorted(name for name in {SERVER_ONLY!r} if name != "midwatch_services" and importlib.util.find_spec(name))
assert not present, f"a base install brings {{present}}"
assert issubclass(Halted, BaseException) and not issubclass(Halted, Exception)
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, str(ROOT)], check=True)
        subprocess.run([python, "-W", "error", "-c", CHECK], check=True, cwd=folder)
        command = subprocess.run(
            [python.parent / "midwatch", "--help"], cwd=folder, capture_output=True, text=True, check=False
        )
        wanted = "midwatch[server,embedded]"
        if command.returncode == 0 or wanted not in command.stderr or "Traceback" in command.stderr:
            print(f"without extras the command has to say what to install ({wanted}), it said: {command.stderr!r}")
            return 1
    print("base install: the SDK imports, and brings nothing of the server's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
