"""Settings: what is right on one machine without any, and what the environment changes."""

import json
from pathlib import Path

import pytest

from midwatch.runtime.settings import Settings


def test_each_service_has_a_database_file_of_its_own_by_default(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.database_for("cost-watchdog") == f"sqlite:///{tmp_path}/data/cost_watchdog.db"
    assert settings.database_for("logger") == f"sqlite:///{tmp_path}/data/logger.db"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_usual_address_of_postgresql_is_taken(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_DATABASE_URL", f"{scheme}://db/midwatch")
    assert Settings().database_for("logger") == "postgresql+psycopg://db/midwatch"


def test_a_database_address_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_DATABASE_URL", "postgresql://db/midwatch_{service}")
    assert Settings().database_for("kill-switch") == "postgresql+psycopg://db/midwatch_kill_switch"


def test_nats_is_found_by_its_variable_then_by_the_run_file_then_on_the_default_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings(home=tmp_path).url == "nats://127.0.0.1:4222"
    (tmp_path / "run.json").write_text(json.dumps({"nats_url": "nats://127.0.0.1:5000"}))
    assert Settings(home=tmp_path).url == "nats://127.0.0.1:5000"
    monkeypatch.setenv("NATS_URL", "nats://elsewhere:4222")
    assert Settings(home=tmp_path).url == "nats://elsewhere:4222"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "")
    monkeypatch.setenv("MIDWATCH_HTTP_PORT", "")
    assert Settings().nats_url is None
    assert Settings().http_port == 8420


def test_a_copy_with_another_address_uses_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.url == "nats://127.0.0.1:4222"
    assert settings.model_copy(update={"nats_url": "nats://other:1"}).url == "nats://other:1"
