"""Where NATS is: `NATS_URL`, else what the local `midwatch up` wrote to `run.json`."""

import os
from pathlib import Path
from typing import Any

import msgspec

DEFAULT_URL = "nats://127.0.0.1:4222"


def home() -> Path:
    """The state folder: `MIDWATCH_HOME`, default `.midwatch` below the current folder."""
    return Path(os.environ.get("MIDWATCH_HOME") or ".midwatch")


def run_file(folder: Path | None = None) -> dict[str, Any]:
    """What `midwatch up` wrote of itself (`nats_url`, `pid`, `http`) in the state folder, or nothing where it does not
    run here."""
    try:
        return msgspec.json.decode(((folder or home()) / "run.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return {}


def nats_url() -> str:
    """Address of the NATS server, in this order: `NATS_URL`, `run.json`, the default port on loopback."""
    return os.environ.get("NATS_URL") or str(run_file().get("nats_url") or DEFAULT_URL)
