"""What is wrong with a card is said with its place: line and column, all of a file at once."""

from pathlib import Path

import pytest

from midwatch_services.cards import CardErrors, find, load

CARD = """\
agent: desk
owner: Ann
purpose: Answers tickets.
can:
  - Look up an order
"""

# What follows the four required keys (so it begins on line 6), and the one error that it gives.
WRONG = [
    ("ownr: Bob", "6:1: `ownr` is no key of a card: did you mean `owner`?"),
    ("budgets: {}", "6:1: `budgets` is no key of a card: did you mean `budget`?"),
    ("budget: {runn: $1}", "6:10: `budget.runn` is no key of a card: did you mean `run`?"),
    ("budget: {zzz: $1}", "6:10: `budget.zzz` is no key of a card: known here: run, ticket"),
    ("<<: {agent: x}", '6:1: a key must be text: put it in "quotes"'),
    ("rollout: {shadow: {days: 14}}", "6:1: `rollout` is not enforced by this release"),
    ("log: {keep: 182 days}", "6:13: `log.keep` must be at least 183 days: the EU AI Act's Article 26 asks for"),
    ("log: {keep: 400}", "6:13: `log.keep` needs a unit: write 400s"),
    ("log: {redact: email}", "6:15: `log.redact` must be a list"),
    ("log: {redact: [phnoe]}", "6:16: `log.redact[1]` names 'phnoe', which is none of email, phone, card, iban"),
    ("log: {redact: [{name: order_no}]}", "6:16: `log.redact[1]` names 'order_no', which is none of email, phone,"),
    ("log: {redact: [email, email]}", "6:15: `log.redact` names 'email' twice: leave one of them out"),
    ("log: {redact: [{name: email, pattern: x}]}", "6:16: `log.redact[1]` gives 'email' a pattern of its own"),
    ("log: {redact: [{name: Order, pattern: x}]}", "6:23: `log.redact[1].name` must be lower-case letters, digits"),
    ("log: {redact: [{field: a, pattern: x}]}", "6:16: `log.redact[1]` holds `field` and `pattern`: write two rules"),
    ("log: {redact: [{field: 'a:b'}]}", "6:24: `log.redact[1].field` must be the name of a key"),
    ("log: {redact: [{nam: email}]}", "6:17: `log.redact[1].nam` is no key of a card: did you mean `name`?"),
    ("log: {redact: [{}]}", "6:16: `log.redact[1]` must say what to redact"),
    ("log: {redact: [3]}", "6:16: `log.redact[1]` must be `email`, `phone`, `card` or `iban`, `{name, pattern}`"),
    ("log: {redact: [{name: a, pattern: 'x*'}]}", "6:35: `log.redact[1].pattern` can match the empty text: use + inst"),
    ("log: {redact: [{name: a, pattern: '(x'}]}", "6:35: `log.redact[1].pattern` is no pattern"),
    ("log: {redact: [{name: a, pattern: '^x'}]}", "6:35: `log.redact[1].pattern` holds ^: leave it out"),
    ("log: {redact: [{name: a, pattern: '(?=x)y'}]}", "6:35: `log.redact[1].pattern` holds (?…, which is not"),
    ("log: {redact: [{name: a, pattern: '(x)\\1'}]}", "6:35: `log.redact[1].pattern` holds \\1, which is not"),
    ("log: {redact: [{name: a, pattern: '((x{500}){500}){9}y'}]}", "6:35: `log.redact[1].pattern` is"),
    ("alerts: {pages: on-call}", "6:10: `alerts.pages` is no key of a card: did you mean `page`?"),
    ("alerts: {page: On Call}", "6:16: `alerts.page` must be the name of a route or contact in pager.yaml"),
    ("alerts: {ticket: [a]}", '6:18: `alerts.ticket` must be text: put it in "quotes"'),
    ("budget: {run: $1, week: $40}", "6:19: `budget.week` is no key of a card: known here: run, ticket, hour, day"),
    ("budget: {at_limit: stop}", "6:20: `budget.at_limit"),
    ("budget: {at_limit: {day: stop}}", "6:26: `budget.at_limit.day"),
    ("budget: {run_steps: 0}", "6:21: `budget.run_steps` must be a whole number of 1 or more"),
    ("loops: {writes: {halt_at: 1}}", "6:27: `loops.writes.halt_at` must be a whole number of 2 or more"),
    ("loops: {velocity: {times: 1}}", "6:27: `loops.velocity.times` must be a number above 1, such as 10"),
    ("budget: {reserve: perhaps}", "6:19: `budget.reserve` must be `true` or `false`"),
    ("loops: {stalled: 30}", "6:18: `loops.stalled` needs a unit: write 30s"),
    ("tools: {pay: {kind: write, cost: -1}}", "6:34: `tools.pay.cost` must not be negative"),
    ("switch: {drill: dayly}", "6:17: `switch.drill` must be `weekly`, `monthly`, `quarterly` or `never`"),
    ("switch: {drills: monthly}", "6:10: `switch.drills` is no key of a card: did you mean `drill`?"),
    ("switch: {drill_hours: 2-5}", "6:23: `switch.drill_hours` must be two times of day in UTC, such as 02:00-05:00"),
    ("switch: {drill_hours: 02:00-24:00}", "6:23: `switch.drill_hours` must be two times of day in UTC"),
    ("switch:\n  trips:\n    halted: 3", "8:5: `switch.trips.halted` is no key of a card: did you mean `halted_runs`?"),
    ("switch: {trips: {mode: acts}}", "6:24: `switch.trips.mode` must be `observe` or `act`: did you mean `act`?"),
    ("switch: {trips: {alerts: budget_run}}", "6:26: `switch.trips.alerts` must be a list"),
    ("switch: {trips: {alerts: [Budget]}}", "6:27: `switch.trips.alerts[1]` is no rule of an alert"),
    ("switch: {trips: {halted_runs: -1}}", "6:31: `switch.trips.halted_runs` must be a whole number, 0 for never"),
    ("switch: {trips: {failed_runs: 50}}", "6:31: `switch.trips.failed_runs` is a share: write 50%"),
    ("switch: {trips: act}", "6:17: `switch.trips` must hold keys and values, or be left out"),
    ("review: {taper: 10%}", "6:17: `review.taper` must be a list"),
    ("review: {taper: [5%, 10%]}", "6:17: `review.taper` must fall from `rate` on, step by step: 10% is not below 5%"),
    ("review: {rate: 10%, taper: [10%]}", "6:28: `review.taper` must fall from `rate` on, step by step: 10% is not"),
    ("review: {taper: [5%, 0%]}", "6:17: `review.taper` must stay above 0%: where nobody reads"),
    ("review: {taper: [5%, 2]}", "6:22: `review.taper[2]` is a share: write 2%"),
    ("review: {days: 0}", "6:16: `review.days` must be a whole number of 1 or more"),
    ("review: {fail_limit: 0%}", "6:22: `review.fail_limit` must be above 0% and below 100%"),
    ("review: {minutes_a_day: -1}", "6:25: `review.minutes_a_day` must be a whole number of minutes, 0 for no limit"),
    ("review: {reasons: [wrong_fact]}", "6:19: `review.reasons` must hold `other`"),
    ("review: {reasons: []}", "6:19: `review.reasons` must hold `other`"),
    ("review: {reasons: [other, other]}", "6:19: `review.reasons` names other twice"),
    ("review: {reasons: [Wrong, other]}", "6:20: `review.reasons[1]` must be a short name in lower-case letters"),
    ("review: {claim: 0s}", "6:17: `review.claim` must be above 0s"),
    ("review: {age: 3}", "6:15: `review.age` needs a unit: write 3s (or m, h, days)"),
    ("review: {besides: {cost: much}}", "6:26: `review.besides.cost` "),
    ("review: {besides: {alert: true}}", "6:20: `review.besides.alert` is no key of a card: did you mean `alerts`?"),
    ("review: {besides: {alerts: 3}}", "6:28: `review.besides.alerts` must be `true` or `false`"),
    ("review: {besides: {complaints: [3]}}", "6:33: `review.besides.complaints[1]` must be text"),
    ("tools: {pay: {kind: write, undo: x}}", "6:28: `tools.pay.undo` is not enforced by this release"),
    (
        "escalate_when:\n  - {say: A lawyer writes, when: 'x'}",
        "7:5: `escalate_when[1]` holds `{say, when}`, which is not enforced by this release",
    ),
    ("cannot: Promise a date", "6:9: `cannot` must be a list: begin each of its lines with `- `"),
    ("cannot:\n  - Promise\n  - 3", '8:5: `cannot[2]` must be text: put it in "quotes"'),
    ("cannot:\n  - Note: it", '7:5: `cannot[1]` reads as `key: value`, not as a sentence: put it in "quotes"'),
    ("cannot:\n  -", "7:4: `cannot[1]` is empty"),
    ("cannot:", "6:1: `cannot` must be a list"),
    ('cannot: ["\\e[31mred"]', "6:10: `cannot[1]` holds control characters: leave them out"),
    ("tools: {pay: wrte}", "6:14: `tools.pay.kind` must be `read`, `write` or `other`: did you mean `write`?"),
    ("tools: {pay: {}}", "6:14: `tools.pay.kind` is missing: `read`, `write` or `other`"),
    ("tools: {pay: }", "6:9: `tools.pay` must be `read`, `write` or `other`"),
    ("tools: {pay: 3}", "6:14: `tools.pay` must be `read`, `write` or `other`"),
    ("tools: {'pay now': read}", "6:9: `tools.pay now` is no tool's name: at most 128 characters, no spaces"),
    ("tools: {3: read}", '6:9: a key must be text: put it in "quotes"'),
    ("tools: [pay]", "6:8: `tools` must hold keys and values, or be left out"),
    ("fallback: robot", "6:11: `fallback` must be `human` or `agent:<name>`"),
    ("fallback: agent:Big", "6:11: `fallback` must be `human` or `agent:<name>`"),
    ("fallback: agent:desk", "6:11: `fallback` is the agent itself: write `human` or another agent"),
    ("budget: 3", "6:9: `budget` must hold keys and values, or be left out"),
    ("budget:", "6:1: `budget` must hold keys and values, or be left out"),
    ("budget: {run: -1}", "6:15: `budget.run` must not be negative"),
    ("budget: {run: $-1}", "6:15: `budget.run` must not be negative"),
    ("budget: {run: one}", "6:15: `budget.run` must be US dollars such as $1 or 0.50"),
    ("budget: {run: 1e3}", "6:15: `budget.run` must be US dollars"),
    ("budget: {run: .nan}", "6:15: `budget.run` must be US dollars"),
    ("budget: {run: true}", "6:15: `budget.run` must be US dollars"),
    ("budget: {run: [1]}", "6:15: `budget.run` must be US dollars"),
    ("budget: {run: 0.0000000000001}", "6:15: `budget.run` must be US dollars"),
    ("review: {rate: 20}", "6:16: `review.rate` is a share: write 20%"),
    ("review: {rate: 1}", "6:16: `review.rate` 1 could be 1% or all: write 1% or 100%"),
    ("review: {rate: 101%}", "6:16: `review.rate` must be a share from 0% to 100%"),
    ("review: {rate: 150}", "6:16: `review.rate` must be a share from 0% to 100%"),
    ("review: {rate: -0.1}", "6:16: `review.rate` must not be negative"),
    ("review: {rate: some}", "6:16: `review.rate` must be a share such as 20% or 0.2"),
    ("review: {rate: .inf}", "6:16: `review.rate` must be a share such as 20% or 0.2"),
    ("switch: {lease: 5}", "6:17: `switch.lease` needs a unit: write 5s (or m, h, days)"),
    ("switch: {lease: 5 weeks}", "6:17: `switch.lease` must be a time such as 5s, 2m, 1h or 7 days"),
    ("switch: {lease: 1s}", "6:17: `switch.lease` must be at least 2s: the switch is read once a second"),
    ("switch: {lost_control: carryon}", "6:24: `switch.lost_control` must be `fall_back` or `carry_on`: did you"),
    ("loops: {alert_at: 5, halt_at: 5}", "6:8: `loops` must alert before they halt: alert_at (5) is not below"),
    ("loops: {alert_at: 5}", "6:8: `loops` must alert before they halt: alert_at (5) is not below halt_at (5)"),
    ("loops: {alert_at: 1}", "6:19: `loops.alert_at` must be a whole number of 2 or more"),
    ("loops: {halt_at: '5'}", "6:18: `loops.halt_at` must be a whole number of 2 or more"),
    ("loops: {halt_at: 5.5}", "6:18: `loops.halt_at` must be a whole number of 2 or more"),
    ("loops: {halt_at: yes}", "6:18: `loops.halt_at` must be a whole number of 2 or more"),
    ("agent: other", "6:1: `agent` stands twice: the first is on line 1"),
    ("budget: {run: 1, run: 2}", "6:18: `run` stands twice: the first is on line 6"),
    ("cannot: &x [Promise a date]", "6:9: anchors and aliases (`&`, `*`) are not accepted: write it out"),
    ("cannot: !!python/object/apply:os.system [ls]", "6:9: the tag"),
    ("budget:\n\trun: 1", "7:1: a tab cannot indent YAML: use spaces"),
    ("cannot: @home", '6:9: this is not YAML: found character \'@\' that cannot start any token; text with special'),
    ("---\nagent: other", "6:1: a second document begins here (`---`): write one card a file"),
    ("cannot: [a, b", "7:1: this is not YAML"),
    ("cannot: *nowhere", "6:9: this is not YAML: found undefined alias"),
]  # fmt: skip


def errors_of(folder: Path, content: str | bytes) -> list[str]:
    path = folder / "desk.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CardErrors) as caught:
        load(path)
    assert str(caught.value) == "\n".join(caught.value.lines)
    assert all(line.startswith(f"{path}:") and "\n" not in line for line in caught.value.lines)
    return [line.removeprefix(f"{path}:") for line in caught.value.lines]


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=[text.split("\n")[0] for text, _ in WRONG])
def test_a_mistake_is_named_with_its_line_and_column(tmp_path: Path, text: str, expected: str) -> None:
    errors = errors_of(tmp_path, CARD + text + "\n")
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "1:1: the file is empty"),
        (b"# only a comment\n", "1:1: the file is empty"),
        (b"just words", "1:1: a card holds keys and values, such as `agent: refund-desk`"),
        (b"- a list", "1:1: a card holds keys and values"),
        (b"agent: desk\nowner: Andr\xe9\n", "2:12: the file is not UTF-8: save it as UTF-8"),
        ("agent: desk\n".encode("utf-16"), "1:1: the file is not UTF-8"),
        (b"agent: desk\nowner: A\x00nn\n", "2:9: the file holds control characters: leave them out"),
        (b"[\n" * 5000, "1:1: the file is nested too deep"),
        (b"a" * 1_000_000, "1:1: the file has 1,000,000 bytes, the limit is 65,536: a card is one page"),
    ],
    ids=["empty", "comment", "scalar", "list", "latin-1", "utf-16", "nul", "nested", "1 MB"],
)
def test_a_file_that_holds_no_card_says_why(tmp_path: Path, content: bytes, expected: str) -> None:
    errors = errors_of(tmp_path, content)
    assert len(errors) == 1
    assert errors[0].startswith(expected)


def test_a_bomb_of_anchors_is_refused_and_not_expanded(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    errors = errors_of(tmp_path, bomb)
    assert "1:4: anchors and aliases (`&`, `*`) are not accepted: write it out" in errors


def test_each_missing_key_says_what_belongs_there(tmp_path: Path) -> None:
    assert errors_of(tmp_path, "fallback: human\n") == [
        "1:1: `agent` is missing: its name, for instance `agent: refund-desk`",
        "1:1: `owner` is missing: who answers for it, for instance `owner: Head of Support <lead@example.org>`",
        "1:1: `purpose` is missing: what it is for, in a sentence",
        "1:1: `can` is missing: a list of what it may do, one line each",
    ]


def test_all_mistakes_of_a_file_come_at_once_in_its_order(tmp_path: Path) -> None:
    text = "agent: Desk.1\nowner: 3\npurpose: ''\ncan: []\nreview: {rate: 20}\nrollout: {}\nowner: Ann\n"
    assert errors_of(tmp_path, text) == [
        "1:8: `agent` must be lower-case letters, digits, `-` and `_`, at most 63, no dots",
        '2:8: `owner` must be text: put it in "quotes"',
        "3:1: `purpose` is empty",
        "4:6: `can` is empty: name at least one thing that the agent may do",
        "5:16: `review.rate` is a share: write 20%",
        "6:1: `rollout` is not enforced by this release, so it is not accepted: leave it out",
        "7:1: `owner` stands twice: the first is on line 2",
    ]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CardErrors, match=r"absent\.yaml: cannot be read: no such file or directory"):
        load(tmp_path / "absent.yaml")


def test_a_folder_stands_for_its_yaml_files(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "readme.md"):
        (tmp_path / name).write_text(CARD)
    assert find([tmp_path, tmp_path / "a.yaml"]) == [tmp_path / "a.yaml", tmp_path / "b.yml"]


def test_a_folder_without_cards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CardErrors, match=r"there is no \.yaml file in this folder: `midwatch card new AGENT`"):
        find([tmp_path])
