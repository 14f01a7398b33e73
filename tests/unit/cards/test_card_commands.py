"""`midwatch card`: what needs no server."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from midwatch_services.cards import load
from midwatch_services.commands import cards

SMALLEST = "agent: desk\nowner: Ann\npurpose: Answers tickets.\ncan: [Look up an order]\n"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def midwatch(*arguments: str) -> Result:
    app = typer.Typer()
    cards.register(app)
    return CliRunner().invoke(app, arguments)


def test_a_new_card_is_accepted_as_it_is() -> None:
    result = midwatch("card", "new", "desk", "--owner", "Ann: #1 <ann@example.org>")
    assert (result.exit_code, result.stderr) == (0, "")
    card = load(Path("agents/desk.yaml"))
    assert (card.agent, card.owner) == ("desk", "Ann: #1 <ann@example.org>")
    assert midwatch("card", "check", "agents").exit_code == 0


def test_every_default_named_in_a_new_card_is_the_default() -> None:
    midwatch("card", "new", "desk", "--owner", "Ann")
    path = Path("agents/desk.yaml")
    before = load(path)
    lines = path.read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("# fallback: human"))
    lines[first:] = [line.removeprefix("# ").removeprefix("#") for line in lines[first:]]
    path.write_text("\n".join(lines) + "\n")
    assert "\n  run_steps: 100" in path.read_text()
    assert "\n    failed_runs: 50%" in path.read_text()
    assert load(path) == before


def test_a_card_that_is_there_is_not_overwritten() -> None:
    Path("agents").mkdir()
    Path("agents/desk.yaml").write_text("mine")
    result = midwatch("card", "new", "desk")
    assert result.exit_code == 1
    assert result.stderr == "midwatch: agents/desk.yaml is there already and stays as it is: change it, or name another with --path\n"  # noqa: E501  # fmt: skip
    assert Path("agents/desk.yaml").read_text() == "mine"


def test_a_card_may_be_written_elsewhere() -> None:
    Path("cards").mkdir()
    assert midwatch("card", "new", "desk", "--path", "cards").exit_code == 0
    assert midwatch("card", "new", "desk", "--path", "deep/er/one.yaml").exit_code == 0
    assert load(Path("cards/desk.yaml")) == load(Path("deep/er/one.yaml"))


def test_a_bad_name_gets_no_card() -> None:
    result = midwatch("card", "new", "../desk")
    assert result.exit_code == 2
    assert result.stderr.startswith("midwatch: '../desk' is no agent's name")
    assert list(Path().iterdir()) == []


def test_check_names_every_mistake_of_every_file_and_fails() -> None:
    Path("a.yaml").write_text(SMALLEST + "ownr: x\nreview: {rate: 20}\n")
    Path("b.yaml").write_text("agent: b\n")
    Path("desk.yaml").write_text(SMALLEST)
    result = midwatch("card", "check", ".")
    assert result.exit_code == 1
    assert result.stdout == f"desk.yaml: ok, desk {load(Path('desk.yaml')).hash[:12]}\n"
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [
        "a.yaml:5:1:", "a.yaml:6:16:", "b.yaml:1:1:", "b.yaml:1:1:", "b.yaml:1:1:",
    ]  # fmt: skip


def test_two_cards_of_one_agent_are_a_mistake() -> None:
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text(SMALLEST)
    result = midwatch("card", "check", "a.yaml", "b.yaml")
    assert result.exit_code == 1
    assert "b.yaml: desk has a card in a.yaml already: keep one of them" in result.stderr


def test_check_in_json_is_one_object_a_line() -> None:
    Path("a.yaml").write_text(SMALLEST)
    Path("b.yaml").write_text("agent: b\nowner: B\npurpose: B.\n")
    result = midwatch("card", "check", "a.yaml", "b.yaml", "--json")
    good, bad = [json.loads(line) for line in result.stdout.splitlines()]
    assert (good["path"], good["agent"], good["hash"]) == ("a.yaml", "desk", load(Path("a.yaml")).hash)
    assert good["notes"] == ["a.yaml: the file is named 'a', its agent 'desk': the agent's name counts"]
    assert bad == {"error": "b.yaml:1:1: `can` is missing: a list of what it may do, one line each"}


def test_show_fills_in_every_default_and_says_so() -> None:
    Path("desk.yaml").write_text(SMALLEST + "budget: {run: 0.50}\ntools: {pay: write}\n")
    result = midwatch("card", "show", "desk.yaml")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()[1:]]
    assert lines == [line.split() for line in """\
agent: desk
owner: Ann
purpose: Answers tickets.
can:
  - Look up an order
cannot: []    # default
escalate_when: []    # default
tools:
  pay: write
fallback: human    # default
budget:
  run: $0.5
  ticket: $2    # default
  run_tokens: 500000    # default
  run_steps: 100    # default
  at_limit:
    run: halt_run    # default
    ticket: halt_run    # default
    hour: fall_back    # default
    day: fall_back    # default
  reserve: False    # default
  unreachable: fall_back    # default
loops:
  alert_at: 3    # default
  halt_at: 5    # default
  writes:
    halt_at: 4    # default
    mode: act    # default
  cycle:
    halt_at: 3    # default
    mode: observe    # default
  text:
    halt_at: 3    # default
    mode: observe    # default
  hand_offs:
    halt_at: 6    # default
    mode: observe    # default
  velocity:
    times: 5.0    # default
    mode: observe    # default
  stalled: 30m    # default
review:
  rate: 20%    # default
  days: 30    # default
  taper:    # default
    - 10%
    - 5%
    - 2%
  fail_limit: 3%    # default
  minutes_a_day: 60    # default
  second_review: 20%    # default
  reasons:    # default
    - promised_too_much
    - wrong_fact
    - wrong_write
    - should_have_handed_off
    - tone
    - other
  claim: 30m    # default
  age: 3 days    # default
  besides:
    alerts: True    # default
    hand_offs: True    # default
    tools: []    # default
    complaints:    # default
      - complain
      - complaint
      - lawyer
      - manager
      - supervisor
      - unacceptable
      - ridiculous
switch:
  lease: 5s    # default
  lost_control: fall_back    # default
  drill: monthly    # default
  drill_hours: 02:00-05:00    # default
  trips:
    mode: observe    # default
    alerts: []    # default
    halted_runs: 3    # default
    failed_runs: 50%    # default
alerts:
  page: ""    # default
  ticket: ""    # default
log:
  keep: 400 days    # default
  redact:    # default
    - email
    - phone
    - card
    - iban
  digest_words: 2000    # default
""".splitlines()]  # fmt: skip


def test_what_show_prints_is_the_same_card() -> None:
    said = "review: {rate: 5%, age: 36h, besides: {cost: $0.50, tools: [pay]}}\n"
    said += "switch: {drill_hours: 22:00-02:00, trips: {mode: act, alerts: [a, b]}}\nalerts: {page: on-call}\n"
    Path("desk.yaml").write_text(SMALLEST + said + 'cannot: ["Yes: #no", "[a]", "- b", "3", "true", "\'", "a\\\\b"]\n')
    shown = midwatch("card", "show", "desk.yaml").stdout
    Path("shown.yaml").write_text(shown)
    assert load(Path("shown.yaml")) == load(Path("desk.yaml"))


def test_show_in_json_names_the_defaults() -> None:
    Path("desk.yaml").write_text(SMALLEST + "review: {rate: 5%}\n")
    shown = json.loads(midwatch("card", "show", "desk.yaml", "--json").stdout)
    assert (shown["review"]["rate"], shown["review"]["taper"], shown["review"]["age"]) == (0.05, [0.02], 259200.0)
    assert (shown["budget"]["run"], shown["budget"]["day"]) == ("1", None)
    assert shown["defaults"] == [
        "cannot", "escalate_when", "tools", "fallback", "budget.run", "budget.ticket", "budget.run_tokens",
        "budget.run_steps", "budget.at_limit.run", "budget.at_limit.ticket", "budget.at_limit.hour",
        "budget.at_limit.day", "budget.reserve", "budget.unreachable", "loops.alert_at", "loops.halt_at",
        "loops.writes.halt_at", "loops.writes.mode", "loops.cycle.halt_at", "loops.cycle.mode", "loops.text.halt_at",
        "loops.text.mode", "loops.hand_offs.halt_at", "loops.hand_offs.mode", "loops.velocity.times",
        "loops.velocity.mode", "loops.stalled", "review.days", "review.taper", "review.fail_limit",
        "review.minutes_a_day", "review.second_review", "review.reasons", "review.claim", "review.age",
        "review.besides.alerts", "review.besides.hand_offs", "review.besides.tools", "review.besides.complaints",
        "switch.lease", "switch.lost_control", "switch.drill",
        "switch.drill_hours", "switch.trips.mode", "switch.trips.alerts", "switch.trips.halted_runs",
        "switch.trips.failed_runs", "alerts.page", "alerts.ticket", "log.keep",
        "log.redact", "log.digest_words",
    ]  # fmt: skip


def test_check_notes_an_alert_that_nothing_raises() -> None:
    Path("desk.yaml").write_text(SMALLEST + "switch: {trips: {alerts: [budget_runn, budget_run]}}\n")
    result = midwatch("card", "check", "desk.yaml")
    assert result.exit_code == 0
    assert (
        "desk.yaml: `switch.trips.alerts` names 'budget_runn', which no service of this release pages with: "
        "did you mean 'budget_run'?"
    ) in result.stderr + result.stdout


@pytest.mark.parametrize(("rate", "notes"), [("9%", 1), ("10%", 0), ("25%", 0), ("26%", 1)])
def test_check_notes_a_rate_that_is_not_the_advised_one(rate: str, notes: int) -> None:
    Path("desk.yaml").write_text(SMALLEST + f"review: {{rate: {rate}, taper: [5%]}}\n")
    result = midwatch("card", "check", "desk.yaml")
    assert result.exit_code == 0
    said = result.stderr.count(f"note: desk.yaml: `review.rate` is {rate}: 10% to 25% is advised")
    assert said == notes


def test_without_a_server_apply_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://user:secret@127.0.0.1:1")
    Path("desk.yaml").write_text(SMALLEST)
    result = midwatch("apply", "desk.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("midwatch: no NATS server answers at nats://127.0.0.1:1 (")
    assert result.stderr.endswith("): start one with `midwatch up`, or set NATS_URL\n")
    assert result.stderr.count("\n") == 1
