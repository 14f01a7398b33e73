"""What is wrong with pager.yaml is said with its place, all of it at once; secrets come from the environment."""

from datetime import time, timedelta
from pathlib import Path

import pytest

from midwatch_services.pager.load import PagerFileErrors, read
from midwatch_services.pager.policy import Channel, Policy, readers_of, writers_of
from midwatch_services.pager.starter import STARTER

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
FILE = """\
channels:
  chat: {webhook: "https://x.example/${ROOM}", secret: "${KEY}"}
contacts: {ann: chat}
routes:
  on-call: {steps: [{tell: ann, within: 10m}]}
default: on-call
"""
ENVIRONMENT = {"ROOM": "r1", "KEY": SECRET}


def policy(folder: Path, text: str, environment: dict[str, str] | None = ENVIRONMENT) -> Policy:
    path = folder / "pager.yaml"
    path.write_text(text)
    return read(path, environment).policy


# What is put in the place of a line of the file, and the one mistake that it is.
WRONG = [
    ("default: on-call", "defaults: on-call", "6:1: `defaults` is no key of pager.yaml: did you mean `default`?"),
    ("default: on-call", "default: on-cal", "6:10: `on-cal` is no route of this file: did you mean `on-call`?"),
    ("default: on-call", "", "1:1: `default` is missing: the route of what no other takes"),
    ("contacts: {ann: chat}", "contacts: {ann: chta}", "3:17: `chta` is no channel of this file: did you mean `chat`?"),
    ("contacts: {ann: chat}", "contacts: {ann: [chat, x]}", "3:24: `x` is no channel of this file: those are chat"),
    ("contacts: {ann: chat}", "contacts: {ann: []}", "3:17: `contacts.ann` is empty: name at least one"),
    ("contacts: {ann: chat}", "contacts: {Ann: chat}", "3:12: `contacts.Ann` is no name: use lower-case letters"),
    ("tell: ann", "tell: bob", "5:28: `bob` is no contact of this file: those are ann"),
    ("tell: ann", "tel: ann", "5:22: `routes.on-call.steps[1].tel` is no key of pager.yaml: did you mean `tell`?"),
    ("within: 10m", "within: 10", "5:41: `routes.on-call.steps[1].within` needs a unit: write 10s"),
    ("within: 10m", "within: 0s", "5:41: `routes.on-call.steps[1].within` must be longer than nothing"),
    ("{steps: [", "{severity: loud, steps: [", "5:23: `routes.on-call.severity` must be `page` or `ticket`"),
    ("{steps: [", "{rules: [Budget], steps: [", "5:21: `routes.on-call.rules[1]` is no rule of an alert"),
    ("{steps: [", "{agents: A.b, steps: [", "5:21: `routes.on-call.agents` is no agent's name"),
    ("webhook:", "web:", "2:10: `channels.chat.web` is no key of pager.yaml: did you mean `webhook`?"),
    (', secret: "${KEY}"', "", "2:9: `channels.chat` needs a `secret` beside `webhook`"),
    ("webhook:", "apprise:", "2:9: `channels.chat` has a `secret`, which only a `webhook` uses"),
    ('secret: "${KEY}"', "alertmanager: https://y.example", "2:9: `channels.chat` must be exactly one of"),
    ("default: on-call", "default: on-call\ndigest: {to: bob}", "7:14: `bob` is no contact of this file"),
    ("default: on-call", "default: on-call\ndigest: {agents: {desk: [ann, bo]}}", "7:31: `bo` is no contact"),
    ("default: on-call", "default: on-call\ndigest: {agents: {desk: []}}", "7:25: `digest.agents.desk` is empty"),
    ("default: on-call", "default: on-call\ndigest: {agents: {_fleet: ann}}", "7:19: `digest.agents._fleet` is no"),
    ("default: on-call", "default: on-call\ncorrections: {to: bob}", "7:19: `bob` is no contact of this file"),
    ("default: on-call", "default: on-call\ncorrections: {agents: {_fleet: ann}}", "7:24: `corrections.agents._fleet`"),
    ("default: on-call", "default: on-call\ndigest: {too: ann}", "7:10: `digest.too` is no key of pager.yaml: did"),
    ("default: on-call", "default: on-call\nquiet_hours: {hours: 22-7, zone: UTC}", "7:22: `quiet_hours.hours` must"),
    (
        "default: on-call", "default: on-call\nquiet_hours: {hours: 22:00-07:00, zone: Berlin}",
        "7:41: `quiet_hours.zone` is no time zone, such as Europe/Berlin or UTC",
    ),
    ("default: on-call", "default: on-call\ngroups: {calms: 1m}", "7:10: `groups.calms` is no key of pager.yaml"),
    ("default: on-call", "default: on-call\ndelivery: {within: 1h}", "7:20: `delivery.within` must be at most 2m"),
    ("contacts: {ann: chat}", "contacts: {ann: chat, on-call: chat}", "3:23: `on-call` is the name of a route as well"),
    ("channels:", "\tchannels:", "1:1: a tab cannot indent YAML: use spaces"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "mistake"), WRONG, ids=[mistake for _, _, mistake in WRONG])
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, mistake: str) -> None:
    assert old in FILE
    with pytest.raises(PagerFileErrors) as caught:
        policy(tmp_path, FILE.replace(old, new, 1))
    assert any(f"pager.yaml:{mistake}" in line for line in caught.value.lines), caught.value.lines


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(PagerFileErrors) as caught:
        policy(tmp_path, FILE.replace("within: 10m", "within: 10").replace("default:", "defalt:"))
    assert len(caught.value.lines) == 3


def test_an_empty_file_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(PagerFileErrors, match="the file is empty: `midwatch pager new` writes one"):
        policy(tmp_path, "")


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    channel = policy(tmp_path, FILE).channels["chat"]
    assert (channel.url, channel.secret, channel.shown) == ("https://x.example/r1", SECRET, "https://x.example")
    assert channel == Channel("chat", "webhook", "https://x.example/r1", SECRET, "https://x.example", "")
    assert SECRET not in repr(channel)
    assert "r1" not in repr(channel)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"ROOM": "r1"}, "${KEY} is not set in the environment of the pager"),
        ({}, "${KEY} and ${ROOM} are not set in the environment of the pager"),
        ({"ROOM": "r1", "KEY": "short"}, "its secret is not whsec_ and base64, or a text of 16 bytes and more"),
    ],
)
def test_a_channel_without_its_secret_is_broken_and_the_file_is_good(
    tmp_path: Path, environment: dict[str, str], why: str
) -> None:
    assert policy(tmp_path, FILE, environment).channels["chat"].broken == why
    assert policy(tmp_path, FILE, None).channels["chat"].broken == ""


def test_what_is_left_out_is_the_default_and_what_is_said_is_obeyed(tmp_path: Path) -> None:
    usual = policy(tmp_path, FILE)
    assert (usual.interval, usual.calm, usual.watchdog_behind) == (
        timedelta(minutes=5), timedelta(minutes=1), timedelta(seconds=30),
    )  # fmt: skip
    said = policy(
        tmp_path,
        FILE + "quiet_hours: {hours: 22:00-07:00, zone: Europe/Berlin, days: [fri, sat]}\ngroups: {interval: 90s}\n"
        "repeat: {longest: 1h}\ndelivery: {within: 3s, give_up_after: 2h}\nwatchdog: {behind: 2m}\n",
    )
    assert said.quiet is not None
    assert (said.quiet.begins, said.quiet.ends, said.quiet.days) == (time(22), time(7), frozenset({4, 5}))
    assert said.routes[0].quiet == said.quiet
    assert (said.interval, said.repeat_longest, said.send_within) == (
        timedelta(seconds=90), timedelta(hours=1), timedelta(seconds=3),
    )  # fmt: skip
    assert (said.give_up_after, said.watchdog_behind) == (timedelta(hours=2), timedelta(minutes=2))


def test_the_digest_has_its_readers_by_agent(tmp_path: Path) -> None:
    assert policy(tmp_path, FILE).digests == {}
    found = policy(tmp_path, FILE + "digest: {to: ann, agents: {desk: [ann]}}\n")
    assert found.digests == {"_fleet": ("ann",), "desk": ("ann",)}
    assert (readers_of(found, "desk"), readers_of(found, "other")) == (("chat",), ())


def test_who_writes_prompts_reads_the_corrections_of_one_agent_or_of_all(tmp_path: Path) -> None:
    found = policy(tmp_path, FILE + "corrections: {agents: {desk: ann}}\n")
    assert (writers_of(found, "desk"), writers_of(found, "mail")) == (("chat",), ())
    both = policy(tmp_path, FILE + "corrections: {to: ann, agents: {desk: [ann]}}\n")
    assert (writers_of(both, "desk"), writers_of(both, "mail")) == (("chat",), ("chat",))


def test_alertmanager_takes_no_digest(tmp_path: Path) -> None:
    text = FILE.replace("  chat:", "  am: {alertmanager: https://y.example}\n  chat:").replace(
        "ann: chat", "ann: [am, chat]"
    )
    assert readers_of(policy(tmp_path, text + "digest: {to: ann}\n"), "_fleet") == ("chat",)


def test_the_defaults_that_a_new_file_names_are_the_defaults(tmp_path: Path) -> None:
    before = policy(tmp_path, STARTER, None)
    lines = STARTER.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("# groups:"))
    kept = [line.removeprefix("# ") for line in lines[first:] if not line.startswith("#   ")]
    assert policy(tmp_path, "\n".join([*lines[:first], *kept]) + "\n", None) == before
