"""`midwatch doctor`: each thing that is wrong is found, with its mend."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from nats.js import JetStreamContext
from typer.testing import CliRunner

from evidence_helpers import SealedLog
from midwatch.contracts.envelope import utc_now
from midwatch.runtime.dead_letters import bury
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.probes import Probes
from midwatch.runtime.settings import Settings
from midwatch_services.commands import doctor as command
from midwatch_services.pager.starter import STARTER

FLEET = "$KV.MIDWATCH_SWITCH.fleet"


class Stub:
    """A service that answers its probes as told."""

    name = "logger"

    def __init__(self, *errors: str) -> None:
        self._errors = errors

    def alive(self) -> dict[str, Any]:
        return {"ok": True}

    async def ready(self) -> dict[str, Any]:
        return {"ok": not self._errors, "errors": self._errors}


@pytest.fixture(autouse=True)
def _server(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)


async def _doctor(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    command.register(app)
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    return result.exit_code, result.output


async def _findings() -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    code, output = await _doctor("--json")
    rows = [json.loads(line) for line in output.splitlines()]
    return code, {(row["check"], row["name"]): row for row in rows}


async def _with_service(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Probes:
    probes = Probes([stub], host="127.0.0.1", port=0)
    await probes.start()
    monkeypatch.setenv("MIDWATCH_HTTP", probes.urls["logger"])
    return probes


async def test_all_is_well(js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = await _with_service(Stub(), monkeypatch)
    reader = await js.pull_subscribe_bind("kill-switch-writes", "KV_MIDWATCH_SWITCH")
    for message in await reader.fetch(1):  # the fleet was armed
        await message.ack_sync()
    code, found = await _findings()
    await probes.close()
    assert code == 0
    assert all(row["ok"] for row in found.values())
    assert {name for check, name in found if check == "stream"} == {
        "MIDWATCH_RUNS", "MIDWATCH_GOVERNANCE", "MIDWATCH_PRESENCE", "MIDWATCH_DEAD",
    }  # fmt: skip
    assert found["consumer", "logger"]["figures"]["lag"] == 0
    assert found["nats", nats_server.url]["figures"]["rtt_ms"] > 0
    assert found["switch", "fleet"]["detail"] == "running"


async def test_who_is_paged_is_said_and_a_wrong_file_is_wrong(js: JetStreamContext) -> None:
    path = Settings().pager_yaml
    _, found = await _findings()
    assert found["pager", "pager.yaml"]["ok"]
    assert found["pager", "pager.yaml"]["detail"] == (
        f"nobody is paged, unless the pager reads another file: there is no {path}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STARTER)
    _, found = await _findings()
    assert found["pager", "pager.yaml"]["detail"] == "routes: on-call, support-leads"
    path.write_text(STARTER.replace("default: on-call", "default: on-cal"))
    _, found = await _findings()
    assert not found["pager", "pager.yaml"]["ok"]
    assert "`on-cal` is no route of this file: did you mean `on-call`?" in found["pager", "pager.yaml"]["detail"]


async def test_nothing_answers(nats_server: NatsServer) -> None:
    await nats_server.stop()
    code, output = await _doctor()
    assert code == 1
    assert f"no NATS server answers at {nats_server.url}" in output
    assert "start one with `midwatch up`" in output


async def test_an_empty_server_is_to_be_given_its_topology() -> None:
    code, found = await _findings()
    assert code == 1
    for kind, name in (("stream", "MIDWATCH_RUNS"), ("bucket", "MIDWATCH_SWITCH"), ("consumer", "logger")):
        assert found[kind, name]["detail"] == "it is not there"
        assert found[kind, name]["mend"] == "run `midwatch topology apply`"
    assert not found["switch", "fleet"]["ok"]


async def test_a_consumer_that_nobody_reads_is_found_by_what_waits(js: JetStreamContext) -> None:
    for number in range(3):
        await js.publish("midwatch.run.a.started", b"{}", headers={"Nats-Msg-Id": str(number)})
    code, found = await _findings()
    watchdog = found["consumer", "cost-watchdog"]
    assert (code, watchdog["ok"], watchdog["detail"]) == (1, False, "3 behind, and nobody reads")
    assert watchdog["figures"] == {"lag": 3, "pending": 3, "ack_pending": 0, "readers": 0}


async def test_dead_letters_are_counted_with_reasons_and_the_last_error(js: JetStreamContext) -> None:
    for number, reason in enumerate(("malformed", "wrong_agent", "malformed")):
        await bury(
            js,
            "logger",
            id=str(number),
            reason=reason,
            error=f"error {number} \x1b[31m",
            subject="midwatch.run.a.said",
            body=b"{",
        )
    code, found = await _findings()
    letters = found["dead letters", "logger"]
    assert (code, letters["ok"]) == (1, False)
    figures = letters["figures"]
    assert (figures["count"], figures["reasons"]) == (3, {"malformed": 2, "wrong_agent": 1})
    assert figures["last_error"] == "error 2 \x1b[31m"
    _, shown = await _doctor()
    assert "3; of the newest: malformed 2, wrong_agent 1." in shown
    assert "\x1b[31m" not in shown.replace("\x1b[31mWRONG", "")
    assert "`midwatch dead list` names them" in shown
    assert "`midwatch dead retry --service logger`, or `drop`" in shown


async def test_an_old_dead_letter_is_shown_but_no_longer_a_fault(
    js: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(js, "logger", id="1", reason="malformed", error="e", subject="s", body=b"")
    tomorrow = utc_now() + command.FRESH
    monkeypatch.setattr("midwatch.contracts.envelope.utc_now", lambda: tomorrow)
    _, found = await _findings()
    letters = found["dead letters", "logger"]
    assert (letters["ok"], letters["figures"]["count"], letters["mend"]) == (True, 1, "")


@pytest.mark.parametrize(
    ("value", "headers", "detail"),
    [
        (b'{"state":"halted","by":"ann","reason":"drill"}', None, "halted by ann: drill"),
        (b"not json", None, "the key cannot be read, so no agent runs"),
        (b"", {"KV-Operation": "DEL"}, "the key was removed, so no agent runs"),
    ],
)
async def test_a_fleet_that_does_not_run_is_found(
    value: bytes, headers: dict[str, str] | None, detail: str, js: JetStreamContext
) -> None:
    await js.publish(FLEET, value, headers=headers)
    code, found = await _findings()
    fleet = found["switch", "fleet"]
    assert (code, fleet["ok"], fleet["detail"]) == (1, False, detail)
    assert "midwatch resume --fleet" in fleet["mend"]


async def test_a_service_that_is_not_ready_says_why(js: JetStreamContext, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = await _with_service(Stub("the disk is full"), monkeypatch)
    code, found = await _findings()
    (service,) = [row for (check, _), row in found.items() if check == "service"]
    await probes.close()
    assert (code, service["ok"]) == (1, False)
    assert "the disk is full" in service["detail"]


async def test_a_service_in_the_run_file_that_does_not_answer_is_found(js: JetStreamContext, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "run.json").write_text(json.dumps({"http": {"logger": "http://127.0.0.1:1/logger"}}))
    code, found = await _findings()
    assert (code, found["service", "logger"]["ok"]) == (1, False)
    assert "midwatch run" in found["service", "logger"]["mend"]


async def test_services_of_which_nothing_is_known_are_not_taken_to_be_well(js: JetStreamContext) -> None:
    code, found = await _findings()
    assert (code, found["service", "all"]["ok"]) == (1, False)
    assert "MIDWATCH_HTTP" in found["service", "all"]["mend"]


async def test_a_mistake_in_the_prices_is_told_with_its_place(
    js: JetStreamContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = tmp_path / "home" / "prices.yaml"
    prices.parent.mkdir(exist_ok=True)
    _, found = await _findings()
    assert found["prices", "prices.yaml"]["detail"] == "none of your own, the rest by genai-prices"
    prices.write_text("openai:\n  m: {input: 1, output: 2}\nopnai:\n  m: {input: 1, output: 2}\n", encoding="utf-8")
    _, found = await _findings()
    assert found["prices", "prices.yaml"]["ok"]
    assert found["prices", "prices.yaml"]["detail"].startswith("2 of your own, the rest by genai-prices. ")
    assert "'opnai' is no provider that Midwatch knows" in found["prices", "prices.yaml"]["detail"]
    prices.write_text("openai:\n  m: {input: 1, outptu: 2}\n", encoding="utf-8")
    code, found = await _findings()
    assert code == 1
    assert not found["prices", "prices.yaml"]["ok"]
    assert found["prices", "prices.yaml"]["detail"] == (
        f"2 mistakes, so that the prices read before it hold. The first: {prices}:2:6: `openai.m.output` is missing: "
        "US dollars a million output tokens, 0 where they cost nothing"
    )
    monkeypatch.setenv("MIDWATCH_PRICES_FILE", str(tmp_path / "absent.yaml"))
    _, found = await _findings()
    assert not found["prices", "absent.yaml"]["ok"]


async def test_a_log_that_is_not_sealed_signed_or_kept_elsewhere_is_wrong(
    js: JetStreamContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "evident"
    (home / "data").mkdir(parents=True)
    (home / "evidence").mkdir()
    monkeypatch.setenv("MIDWATCH_HOME", str(home))
    log = SealedLog(f"sqlite:///{home}/data/logger.db", home / "evidence")
    log.fill(2)
    _, found = await _findings()
    assert found["evidence", "sealing"]["ok"]
    assert found["checkpoints", "file"]["detail"] == "2 of 2 taken"
    assert found["checkpoints", "key"]["detail"] == f"signed with {log.key.id}"
    assert not found["checkpoints", "nats"]["ok"]  # those of this log are days old, and no logger has sent them
    log.file.unlink()
    log.store()
    (log.folder / "signing.key").chmod(0o644)
    log.database.close()
    _, found = await _findings()
    assert "2 events to seal, the oldest stored" in found["evidence", "sealing"]["detail"]
    assert [found[one]["ok"] for one in (("evidence", "sealing"), ("checkpoints", "file"), ("checkpoints", "key"))] == [
        False, False, False,
    ]  # fmt: skip
    assert "chmod 600" in found["checkpoints", "key"]["mend"]
