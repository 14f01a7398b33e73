"""Which nats-server is run."""

import sys
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest

from midwatch.runtime.nats_server import NoNatsServer, find_binary


def _on_path(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    binary = folder / "nats-server"
    binary.write_text(f"#!/bin/sh\necho nats-server: {version}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return binary


def _no_wheel(_: str) -> NoReturn:
    raise metadata.PackageNotFoundError


@pytest.mark.parametrize("version", ["v2.12.0", "v2.15.1", "v3.0.0-beta"])
def test_a_recent_server_on_the_path_is_preferred(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = _on_path(tmp_path, version, monkeypatch)
    assert find_binary() == binary


@pytest.mark.parametrize("version", ["v2.9.25", "v1.99.0", "nonsense"])
def test_an_old_server_on_the_path_is_passed_over_for_the_wheel(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_path(tmp_path, version, monkeypatch)
    assert find_binary() == (Path(sys.executable).parent / "nats-server").resolve()


def test_without_any_server_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_path(tmp_path, "v2.9.25", monkeypatch)
    monkeypatch.setattr(metadata, "files", _no_wheel)
    with pytest.raises(NoNatsServer, match=r"install `midwatch\[embedded\]`.* or set NATS_URL"):
        find_binary()
