"""`midwatch dead`: what died is looked at and dropped, by those who may."""

import pytest
from nats.js import JetStreamContext

import shipped_server
from dead_helpers import FOUR, SAID, command, left, letter, published, rows
from midwatch.contracts import subjects
from midwatch.runtime.nats_server import NatsServer
from shipped_server import Connect

# Fixtures of this file
server, connect, declared = shipped_server.server, shipped_server.connect, shipped_server.declared


@pytest.fixture
async def js(js: JetStreamContext, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> JetStreamContext:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    return js


# Looking


async def test_the_list_has_the_newest_first_with_what_the_person_needs(js: JetStreamContext) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2", service="kill-switch", reason="malformed", error="no JSON", stream_seq=8, attempts=1)
    told = (await command("list")).stdout.splitlines()
    assert told[0].split() == ["number", "when", "service", "reason", "subject", "attempts", "error"]
    assert told[1].split()[0] == "2"
    assert told[1].split()[3:] == ["kill-switch", "malformed", SAID, "1", "no", "JSON"]
    assert told[2].split()[3:] == ["logger", "failed", SAID, "5", "the", "disk", "was", "full"]


async def test_four_services_that_could_not_process_one_message_are_one_line(js: JetStreamContext) -> None:
    for service in FOUR:
        await letter(js, service=service)
    (row,) = await rows("list")
    assert (row["number"], row["numbers"], row["services"]) == (4, [4, 3, 2, 1], sorted(FOUR))


async def test_the_list_is_filtered(js: JetStreamContext) -> None:
    await letter(js, "e-1")
    await letter(js, "e-2", service="kill-switch", reason="malformed", stream_seq=8)
    await letter(js, "e-3", subject="midwatch.run.re.fund.said", stream_seq=9)
    for filters, numbers in (
        ((), [3, 2, 1]),
        (("--service", "logger"), [3, 1]),
        (("--reason", "malformed"), [2]),
        (("--agent", "desk"), [2, 1]),
        (("--agent", "re.fund"), [3]),
        (("--service", "logger", "--agent", "desk"), [1]),
        (("--since", "1h"), [3, 2, 1]),
        (("--since", "2999-01-01T00:00"), []),
        (("--limit", "1"), [3]),
    ):
        assert (filters, [row["number"] for row in await rows("list", *filters)]) == (filters, numbers)


async def test_one_letter_is_shown_whole_with_its_body_as_json(js: JetStreamContext) -> None:
    await letter(js)
    told = (await command("show", "1")).stdout
    for part in ("the disk was full", "after 5 attempts", f"{SAID} (MIDWATCH_RUNS 7)", "traceparent: 00-aa-bb-01",
                 '"text": "Hi"', "`midwatch dead retry 1` publishes it again"):  # fmt: skip
        assert part in told
    (row,) = await rows("show", "1")
    assert (row["number"], row["body"]["data"]["text"], row["retry_refused"]) == (1, "Hi", None)


async def test_a_long_body_is_cut_unless_all_is_asked_for(js: JetStreamContext) -> None:
    await letter(js, body=b"x" * 5_000)
    assert "(5,000 characters; --full shows all)" in (await command("show", "1")).stdout
    assert "x" * 5_000 in (await command("show", "1", "--full")).stdout


@pytest.mark.parametrize("body", [b"\x1b[31mred \xff\xfe [bold]", b'{"a": "\x9b31m", "b": "[bold]"}', b"[" * 100_000])
async def test_hostile_text_reaches_no_terminal(js: JetStreamContext, body: bytes) -> None:
    await letter(js, body=body, error="\x1b]0;owned\x07 [red]", headers={"a\x1b": "\x1b[2J"}, subject="x\x1b[1m")
    for arguments in (("list",), ("show", "1", "--full"), ("retry", "1", "--yes")):
        result = await command(*arguments)
        assert result.exit_code in (0, 3), result.output
        assert not [c for c in result.output if not (c.isprintable() or c == "\n")]
    assert "[red]" in (await command("show", "1")).stdout


async def test_what_is_no_dead_letter_is_listed_and_can_be_dropped(js: JetStreamContext) -> None:
    await js.publish(subjects.dead("logger"), b"by hand")
    (row,) = await rows("list")
    assert (row["services"], row["reasons"]) == (["logger"], ["unreadable"])
    assert "by hand" in (await command("show", "1")).stdout
    assert (await command("retry", "1", "--yes")).exit_code == 3
    assert (await command("drop", "1", "--yes")).exit_code == 0
    assert await left(js) == 0


# Dropping, asking, and what goes wrong


async def test_dropping_deletes_for_good_and_says_how_many(js: JetStreamContext) -> None:
    for service in FOUR:
        await letter(js, service=service)
    await letter(js, "e-2", reason="malformed", stream_seq=8)
    result = await command("drop", "--reason", "malformed", "--yes")
    assert (result.exit_code, result.stdout) == (0, "1 letter dropped\n")
    (row,) = await rows("drop", "1", "--yes")
    assert row == {"dropped": 4, "numbers": [1, 2, 3, 4]}
    assert (await published(js), await left(js)) == (0, 0)


@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_a_person_is_asked_and_no_is_no(js: JetStreamContext, verb: str) -> None:
    await letter(js)
    result = await command(verb, "1", answer="n\n")
    assert "1 message (1 letter of logger)" in result.stderr
    assert (result.exit_code, await left(js)) == (1, 1)
    assert (await command(verb, "1")).exit_code == 2  # nobody is there to be asked
    assert (await command(verb, "1", answer="y\n")).exit_code == 0
    assert await left(js) == 0


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--all"), ("--all", "--service", "logger"), ("1", "--reason", "x"), ("0",)]
)
@pytest.mark.parametrize("verb", ["retry", "drop"])
async def test_which_letters_are_meant_is_said_in_one_way(verb: str, arguments: tuple[str, ...]) -> None:
    assert (await command(verb, *arguments, "--yes")).exit_code == 2


@pytest.mark.parametrize("arguments", [("show", "9"), ("retry", "1", "9", "--yes"), ("drop", "9", "--yes")])
async def test_a_number_that_is_none_changes_nothing(js: JetStreamContext, arguments: tuple[str, ...]) -> None:
    await letter(js)
    result = await command(*arguments)
    assert (result.exit_code, result.stderr) == (
        1, "midwatch: There is no dead letter 9: `midwatch dead list` names those that are there.\n",
    )  # fmt: skip
    assert (await published(js), await left(js)) == (0, 1)


async def test_nothing_answers_or_nothing_is_declared(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", nats_server.url)
    for arguments in (("list",), ("show", "1"), ("retry", "1", "--yes"), ("drop", "1", "--yes")):
        result = await command(*arguments)
        assert (result.exit_code, result.stderr) == (
            1, "midwatch: There is no stream MIDWATCH_DEAD: run `midwatch topology apply`.\n",
        )  # fmt: skip
    await nats_server.stop()
    result = await command("list")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "start one with `midwatch up`, or set NATS_URL" in result.stderr


@pytest.mark.usefixtures("declared")
async def test_an_operator_lists_and_shows_and_only_the_admin_retries_and_drops(
    connect: Connect, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(user: str) -> None:
        monkeypatch.setenv("NATS_URL", f"nats://{user}:pw-{shipped_server.ROLES[user].lower()}@{server}")

    async with connect("services") as services:
        await letter(services.nc.jetstream())
    become("operator")
    assert [row["number"] for row in await rows("list")] == [1]
    assert '"text": "Hi"' in (await command("show", "1")).stdout
    for verb in ("retry", "drop"):
        result = await command(verb, "1", "--yes")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "retrying and dropping them the admin's" in result.stderr
    become(shipped_server.AGENT)
    refused = await command("list")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "listing and showing dead letters takes the operator's rights" in refused.stderr
    become("admin")
    assert (await command("retry", "1", "--yes")).exit_code == 0
    assert await rows("list") == []
