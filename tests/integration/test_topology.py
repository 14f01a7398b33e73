"""`apply` on a real server: as often as one likes, and never against what is stored."""

import asyncio
import json

import pytest
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError
from typer.testing import CliRunner, Result

from helpers import eventually
from midwatch.contracts import control, subjects
from midwatch.runtime import topology
from midwatch.runtime.nats_server import NatsServer, start_nats
from midwatch.runtime.settings import Settings
from midwatch.runtime.topology import Change

FLEET = "$KV.MIDWATCH_SWITCH.fleet"


def _of(changes: list[Change], name: str) -> Change:
    (found,) = [change for change in changes if change.name == name]
    return found


def _with(settings: Settings, **fields: object) -> Settings:
    return settings.model_copy(update=fields)


async def test_applying_again_changes_nothing(js: JetStreamContext, settings: Settings) -> None:
    changes = await topology.apply(js, settings)
    assert {change.action for change in changes} == {"unchanged"}
    assert len(changes) == 4 + 4 + len(topology.CONSUMERS) + 1
    assert await topology.missing(js) == []


async def test_a_limit_below_what_is_stored_is_refused_and_nothing_is_touched(
    js: JetStreamContext, settings: Settings
) -> None:
    await js.publish("midwatch.run.a.started", b"{}")
    change = _of(await topology.apply(js, _with(settings, runs_max_age_days=1)), "MIDWATCH_RUNS")
    assert change.action == "refused"
    assert "max_age: 2592000.0 → 86400.0" in change.detail
    assert "--force" in change.detail
    assert (await js.stream_info("MIDWATCH_RUNS")).config.max_age == 2_592_000


async def test_a_size_limit_says_how_much_it_would_cost(js: JetStreamContext, settings: Settings) -> None:
    await js.publish("midwatch.run.a.started", b"x" * 1000)
    stored = (await js.stream_info("MIDWATCH_RUNS")).state.bytes
    change = _of(await topology.apply(js, _with(settings, runs_max_bytes=stored - 10)), "MIDWATCH_RUNS")
    assert f"10 of {stored} stored bytes would be lost" in change.detail
    roomy = _of(await topology.apply(js, _with(settings, runs_max_bytes=stored + 10)), "MIDWATCH_RUNS")
    assert roomy.action == "updated"


async def test_force_makes_a_change_that_was_refused(js: JetStreamContext, settings: Settings) -> None:
    await js.publish("midwatch.run.a.started", b"{}")
    changes = await topology.apply(js, _with(settings, runs_max_age_days=1), force=True)
    assert _of(changes, "MIDWATCH_RUNS").action == "updated"
    assert (await js.stream_info("MIDWATCH_RUNS")).config.max_age == 86_400


async def test_a_harmless_change_is_made_and_keeps_what_others_set(js: JetStreamContext, settings: Settings) -> None:
    await js.publish("midwatch.run.a.started", b"{}")
    found = (await js.stream_info("MIDWATCH_RUNS")).config
    await js.update_stream(found.evolve(metadata={"team": "ops"}, duplicate_window=60))
    change = _of(await topology.apply(js, _with(settings, runs_max_age_days=60)), "MIDWATCH_RUNS")
    assert change.action == "updated"
    info = await js.stream_info("MIDWATCH_RUNS")
    assert (info.config.max_age, info.config.duplicate_window, info.state.messages) == (5_184_000, 120, 1)
    assert info.config.metadata is not None
    assert info.config.metadata["team"] == "ops"


async def test_a_subject_that_someone_added_is_not_taken_away(js: JetStreamContext, settings: Settings) -> None:
    found = (await js.stream_info("MIDWATCH_DEAD")).config
    await js.update_stream(found.evolve(subjects=["midwatch.dead.>", "other.dead"]))
    change = _of(await topology.apply(js, settings), "MIDWATCH_DEAD")
    assert change.action == "refused"
    assert "nothing would keep other.dead any more" in change.detail


async def test_storage_is_changed_only_by_force_where_messages_would_go(nc: Client, settings: Settings) -> None:
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="MIDWATCH_PRESENCE", subjects=["midwatch.presence.>"]))
    await js.publish("midwatch.presence.a.i", b"{}")
    refused = _of(await topology.apply(js, settings), "MIDWATCH_PRESENCE")
    assert refused.action == "refused"
    assert "its 1 messages would be lost" in refused.detail
    assert _of(await topology.apply(js, settings, force=True), "MIDWATCH_PRESENCE").action == "updated"
    assert (await js.stream_info("MIDWATCH_PRESENCE")).state.messages == 0


async def test_a_stream_that_is_not_ours_is_left_alone(nc: Client, settings: Settings) -> None:
    js = nc.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.publish("orders.1", b"x")
    before = (await js.stream_info("ORDERS")).config
    await topology.apply(js, settings, force=True)
    info = await js.stream_info("ORDERS")
    assert (info.config, info.state.messages) == (before, 1)


async def test_a_stream_of_others_over_our_subjects_is_told_in_the_servers_words(
    nc: Client, settings: Settings
) -> None:
    js = nc.jetstream()
    await js.add_stream(name="ALL", subjects=["midwatch.run.*.started"])
    change = _of(await topology.apply(js, settings), "MIDWATCH_RUNS")
    assert change.action == "refused"
    assert "subjects overlap" in change.detail


async def test_a_consumer_is_brought_back_to_what_is_declared(js: JetStreamContext, settings: Settings) -> None:
    found = (await js.consumer_info("MIDWATCH_RUNS", "logger")).config
    await js.add_consumer("MIDWATCH_RUNS", found.evolve(ack_wait=1, max_deliver=3))
    change = _of(await topology.apply(js, settings), "MIDWATCH_RUNS/logger")
    assert (change.action, change.detail) == ("updated", "ack_wait: 1.0 → 30.0, max_deliver: 3 → -1")


async def test_a_new_bucket_is_armed_and_says_who_armed_it(js: JetStreamContext) -> None:
    record = control.decode_record((await js.get_last_msg("KV_MIDWATCH_SWITCH", FLEET)).data or b"")
    assert record is not None
    assert (record.state, record.by) == ("running", "topology apply")


async def test_a_halted_fleet_stays_halted(js: JetStreamContext, settings: Settings) -> None:
    await js.publish(FLEET, b'{"state":"halted"}')
    assert _of(await topology.apply(js, settings, force=True), "fleet").action == "unchanged"
    assert (await js.get_last_msg("KV_MIDWATCH_SWITCH", FLEET)).data == b'{"state":"halted"}'


async def test_a_deleted_fleet_key_is_not_armed_again(js: JetStreamContext, settings: Settings) -> None:
    await (await js.key_value("MIDWATCH_SWITCH")).delete("fleet")
    change = _of(await topology.apply(js, settings), "fleet")
    assert change.action == "refused"
    assert "midwatch resume --fleet" in change.detail


async def test_a_purged_bucket_is_not_armed_again(js: JetStreamContext, settings: Settings) -> None:
    await js.purge_stream("KV_MIDWATCH_SWITCH")
    assert _of(await topology.apply(js, settings), "fleet").action == "refused"
    with pytest.raises(NotFoundError):
        await js.get_last_msg("KV_MIDWATCH_SWITCH", FLEET)


async def test_the_server_lets_a_case_be_opened_once(js: JetStreamContext) -> None:
    case = subjects.key_subject(subjects.CASES, "a.r-1")
    await js.publish(case, b"first")
    with pytest.raises(APIError):
        await js.publish(case, b"second")
    with pytest.raises(APIError):
        await js.publish(case, b"third", headers={"Nats-Rollup": "sub"})
    assert (await js.get_last_msg("KV_MIDWATCH_CASES", case)).data == b"first"


async def test_a_write_of_the_switch_is_heard_on_core_nats(js: JetStreamContext, nc: Client) -> None:
    heard = await nc.subscribe(subjects.control(subjects.agent_key("a")))
    await nc.flush()
    await js.publish(subjects.key_subject(subjects.SWITCH, "agent.a"), b'{"state":"halted"}')
    message = await heard.next_msg(2)
    assert message.subject == "midwatch.control.agent.a"
    assert message.headers is not None
    assert message.headers["Nats-Sequence"] == "2"


async def test_what_a_restart_takes_from_memory_is_restored_and_the_rest_is_there(
    nats_server: NatsServer, js: JetStreamContext, nc: Client, settings: Settings
) -> None:
    nats_server.kill()
    await nats_server.restart()
    await eventually(lambda: nc.is_connected)
    assert await topology.missing(js) == ["MIDWATCH_PRESENCE"]
    await topology.restore(js, settings)
    assert await topology.missing(js) == []


async def test_without_jetstream_the_mend_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    import nats

    config = "accounts { plain { users: [{user: a, password: b}] } }\nno_auth_user: a\n"
    async with await start_nats(tmp_path_factory.mktemp("plain"), config=config) as server:
        client = await nats.connect(server.url)
        with pytest.raises(topology.NoJetStream, match="start it with `-js`"):
            await topology.apply(client.jetstream(), Settings())
        await client.close()


async def _command(*arguments: str) -> Result:
    from midwatch_services.commands import topology as command

    app = typer.Typer()
    command.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, ["topology", "apply", *arguments])


async def test_the_command_prints_a_json_object_a_line(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    result = await _command("--json")
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert rows[0] == {"kind": "stream", "name": "MIDWATCH_RUNS", "action": "created", "detail": ""}
    assert rows[-1] == {"kind": "key", "name": "fleet", "action": "created", "detail": "running"}


async def test_the_command_exits_with_1_where_it_refused(
    js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await js.publish("midwatch.run.a.started", b"{}")
    monkeypatch.setenv("NATS_URL", nats_server.url)
    monkeypatch.setenv("MIDWATCH_RUNS_MAX_AGE_DAYS", "1")
    assert (await _command()).exit_code == 1
    assert (await _command("--force")).exit_code == 0
