"""The files of an eval set: what they may hold, and how each mistake is told with its place."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from eval_helpers import SMALLEST, a_case, put, recorded
from midwatch_services.evals import load, schema, write
from midwatch_services.evals.case import Agreed, CallRule, Expect, Message, Recorded

ROOT = Path(__file__).resolve().parents[3]
FULL = """\
case: duplicate-charge
about: The customer was charged twice.
task: shop/7
from: {run: run-8c1f, version: 2026-11-22}
earlier:
  - agent: How can I help?
conversation:
  - I was charged twice
    for order A-1001.
  - Yes, please.
expect:
  says: refund
  says_not: [guarantee, within the hour]
  calls:
    - {tool: lookup_order, arguments: {order_id: A-1001, $.page.size: 2.0}}
  calls_not:
    - {tool: issue_refund, when: amount > 50}
    - close_account
  writes: [{tool: issue_refund, arguments: {amount: 20}}]
  hands_off: false
  max_cost: $0.10
  max_steps: 12
  judge: my_judges:polite
missing: fail
tools: {issue_refund: write, lookup_order: read}
recorded:
  - {tool: lookup_order, arguments: {order_id: A-1001}, result: {total: 40.5, lines: [1, 2]}}
  - {tool: issue_refund, arguments: {amount: 20}, error: try again}
  - {tool: other_tool, kind: write}
agreed:
  - {by: ana, at: 2026-11-22T10:00:00Z, hash: abababababababababababababababababababababababababababababababab}
"""


def loaded(folder: Path) -> tuple[list[Any], list[str]]:
    cases, broken = load.load(folder / "evals" / "desk")
    return cases, [line.replace(f"{folder}/evals/desk/", "") for line in broken]


def test_a_file_with_everything_is_the_case_that_it_reads_as(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", FULL)
    (case,), broken = loaded(tmp_path)
    assert broken == []
    assert case == a_case(
        note="The customer was charged twice.",
        task="shop/7",
        run_id="run-8c1f",
        version="2026-11-22",
        earlier=(Message("agent", "How can I help?"),),
        turns=("I was charged twice for order A-1001.", "Yes, please."),
        missing="fail",
        kinds={"issue_refund": "write", "lookup_order": "read", "other_tool": "write"},
        recorded=(
            Recorded("lookup_order", {"order_id": "A-1001"}, {"total": 40.5, "lines": [1, 2]}, kind="read"),
            Recorded("issue_refund", {"amount": 20}, error="try again", kind="write"),
            Recorded("other_tool", None, kind="write"),
        ),
        agreed=(Agreed("ana", "2026-11-22T10:00:00Z", "ab" * 32),),
        path=str(path),
        says=("refund",),
        says_not=("guarantee", "within the hour"),
        calls=(CallRule("lookup_order", {"order_id": "A-1001", "$.page.size": 2.0}),),
        calls_not=(CallRule("issue_refund", when="amount > 50"), CallRule("close_account")),
        writes=(CallRule("issue_refund", {"amount": 20}),),
        hands_off=False,
        max_cost="0.1",
        max_steps=12,
        judge="my_judges:polite",
    )


def test_what_is_left_out_is_not_judged(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST)
    put(tmp_path, "b.yml", SMALLEST.replace("duplicate-charge", "b") + "expect: {writes: []}")
    (first, second), broken = loaded(tmp_path)
    assert (first.expect, second.expect, broken) == (Expect(), Expect(writes=()), [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("expekt: {}", "a.yaml:4: `expekt` is no key of a case: did you mean `expect`?"),
        ("expect:\n  say: [x]", "a.yaml:5: `expect.say` is no key of `expect`: did you mean `says`?"),
        ("expect:\n  calls:\n    - {tool: a, arg: 1}",
         "a.yaml:6: `expect.calls[1].arg` is no key of `expect.calls[1]`: known here: arguments, tool, when"),
        ("expect:\n  calls:\n    - arguments: {}", "a.yaml:6: `expect.calls[1].tool` is missing: the tool's name"),
        ("expect: {calls_not: [{tool: a, when: amount >}]}",
         "a.yaml:4: `expect.calls_not[1].when` is no condition (CEL), at column 9: mismatched input '<EOF>'"),
        (f"expect: {{calls_not: [{{tool: a, when: {'(' * 500}}}]}}",
         "a.yaml:4: `expect.calls_not[1].when` is no condition (CEL), it is nested too deep"),
        ("expect: {calls: [{tool: a, arguments: {'$.a[': 1}}]}",
         "a.yaml:4: `expect.calls[1].arguments` names `$.a[`, which is no JSONPath: "),
        ("expect: {max_cost: -1}", "a.yaml:4: `expect.max_cost` must not be negative: write US dollars such as $1 or"),
        ("expect: {max_steps: 0}", "a.yaml:4: `expect.max_steps` must be a whole number of 1 or more"),
        ("expect: {hands_off: maybe}", "a.yaml:4: `expect.hands_off` must be `true` or `false`"),
        ("expect: {judge: polite}", "a.yaml:4: `expect.judge` must be `module:function`, such as `my_judges:polite`"),
        ("tools: {a: reed}", "a.yaml:4: `tools.a` must be `read`, `write` or `other`: did you mean `read`?"),
        ("earlier: [{customer: a, agent: b}]",
         "a.yaml:4: `earlier[1]` must be one of `customer: …`, `agent: …` and `human: …`"),
        ("missing: guess", "a.yaml:4: `missing` must be `nearest` or `fail`"),
        ("recorded: [lookup]", "a.yaml:4: `recorded[1]` must hold keys and values"),
        ("about: &a x", "a.yaml:4: anchors and aliases (`&`, `*`) are not accepted: write it out"),
        ("agreed: [{by: ana, at: now, hash: abc}]",
         "a.yaml:4: `agreed[1].hash` must be 64 hex digits; `midwatch eval agree` writes it"),
        ("case: twice", "a.yaml:4: `case` stands twice: the first is on line 1"),
        ("a: [", "a.yaml:5: this is not YAML: "),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, line: str) -> None:
    put(tmp_path, "a.yaml", SMALLEST + text + "\n")
    cases, broken = loaded(tmp_path)
    assert cases == [] and len(broken) == 1
    assert broken[0].startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "a.yaml:1: the file is empty: `midwatch eval add RUN` writes a case"),
        ("- case: a", "a.yaml:1: a case holds keys, such as `conversation:`"),
        ("case: a", "a.yaml:1: `conversation` is missing: what the customer says, a list with one entry for each"),
        ("conversation: hi", "a.yaml:1: `case` is missing: its name, for instance `case: duplicate-charge`"),
        ("case: A b\nconversation: hi", "a.yaml:1: `case` is no name of a case: use lower-case letters"),
        ("case: ../a\nconversation: hi", "a.yaml:1: `case` is no name of a case: use lower-case letters"),
        ("case: a\nconversation: []", "a.yaml:2: `conversation` is empty: name at least one"),
        ("case: a\nconversation: ['']", "a.yaml:2: `conversation[1]` is empty"),
        ("case: a\nconversation: [{a: b}]", 'a.yaml:2: `conversation[1]` must be text: put it in "quotes"'),
        ("cases: {a: 1}", "a.yaml:1: `cases` must be a list: begin each with `- case: …`"),
        ("about: x\ncases: []", "a.yaml:1: `about` is no key of a list of cases: known here: cases"),
        ("case: a\nconversation: hi\nx: " + "y" * 5_000_000,
         "a.yaml:1: the file has 5,000,028 bytes, the limit is 4,194,304: leave out what no agent needs"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_case_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    put(tmp_path, "a.yaml", text)
    cases, broken = loaded(tmp_path)
    assert cases == [] and len(broken) == 1
    assert broken[0].startswith(line)


def test_the_rest_of_a_list_and_of_a_folder_still_loads(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", """\
cases:
  - case: one
    conversation: [hi]
  - case: two
    conversation: [hi]
    exspect: {}
    tools: {a: b}
  - case: three
    about: &x anchored
    conversation: [hi]
  - just text
  - case: four
    conversation: [hi]
""")  # fmt: skip
    put(tmp_path, "b.yaml", "\x00")
    put(tmp_path, "c.yaml", SMALLEST)
    cases, broken = loaded(tmp_path)
    assert [case.name for case in cases] == ["one", "four", "duplicate-charge"]
    assert broken == [
        "a.yaml:6: `exspect` is no key of a case: did you mean `expect`? (and 1 more: `midwatch eval check` names all)",
        "a.yaml:9: anchors and aliases (`&`, `*`) are not accepted: write it out",
        "a.yaml:11: a case holds keys and values, such as `conversation:`",
        "b.yaml:1: the file holds control characters: leave them out",
    ]


def test_of_two_cases_with_one_name_the_first_counts(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST)
    put(tmp_path, "b.yaml", SMALLEST)
    cases, broken = loaded(tmp_path)
    assert [case.path[-6:] for case in cases] == ["a.yaml"]
    assert broken == ["b.yaml:1: `duplicate-charge` is the name of a case in a.yaml:1: choose another"]


def test_long_results_fit_where_a_card_would_not(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST + f"recorded: [{{tool: a, result: {'x' * 1_000_000}}}]\n")
    (case,), broken = loaded(tmp_path)
    assert (len(case.recorded[0].result), broken) == (1_000_000, [])


def test_a_set_that_is_not_there_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(load.NoEvalSet, match="make cases with `midwatch eval add RUN --agent desk`"):
        load.load("desk", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "plain", "  leading", "trailing  ", "two\nlines", "two\nlines\n", "\nblank first", "  - {a: b}\n# no comment",
        "tab\there\nand", "bell \x07 nul \x00", "’“ üñî 漢字 🙂", "yes", "null", "1.0", "0x1f", "2026-11-22", "'", '"',
        ": ", "---\nx", "\x85next\u2028line", "a" * 5000, "line \n with space\n\n\n", "\ufeffmark", "~", "=", "<<",
    ],
)  # fmt: skip
def test_any_text_reads_back_as_it_was(tmp_path: Path, text: str) -> None:
    case = a_case(turns=(text,), recorded=(recorded("t", result=text, note=text), recorded("t", result={text: [text]})),
                  kinds={"t": "read"}, writes=(CallRule("t", {"a": text}),))  # fmt: skip
    path = tmp_path / "desk" / f"{case.name}.yaml"
    write.save(path, write.text(case, [text]), case)
    ((found,), broken) = load.load(tmp_path / "desk")
    assert broken == []
    assert (found.turns, found.recorded, found.expect) == (case.turns, case.recorded, case.expect)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.text(min_size=1).filter(str.strip), st.dictionaries(st.text() | st.text(min_size=130), JSON, max_size=4))
@settings(max_examples=150)
def test_whatever_is_said_and_called_reads_back(said: str, arguments: dict[str, Any]) -> None:
    case = a_case(turns=(said,), recorded=(Recorded("t", arguments, said, kind="read"),), kinds={"t": "read"})
    assert load.one(Path("x.yaml"), write.text(case, [said]).encode(), "desk") == replace(case, path="x.yaml")


def test_a_full_case_reads_back_as_it_was(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", FULL)
    (case,), _ = loaded(tmp_path)
    again = load.one(Path(case.path), write.text(case).encode(), "desk")
    assert again == case


def test_a_comment_stays_one_whatever_is_in_it() -> None:
    assert write.comments(["a\ncase: b", "c\u2028d: e\x1b[31m", ""]) == "# a case: b\n# c d: e [31m\n#\n"


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    case = a_case()
    path = put(tmp_path, "duplicate-charge.yaml", "mine")
    with pytest.raises(write.FileIsThere, match="choose another name with `--name`"):
        write.save(path, write.text(case), case)
    assert path.read_text() == "mine"


def yaml_data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_committed_schema_is_the_one_that_the_model_gives() -> None:
    committed = (ROOT / "docs" / "contract" / "case.schema.json").read_text()
    assert committed == schema.text(), "run `python -m midwatch_services.evals.schema > docs/contract/case.schema.json`"


def test_the_schema_takes_what_the_reader_takes_and_refuses_what_it_refuses() -> None:
    ours = json.loads(schema.text())
    dated = FULL.replace("2026-11-22T10:00:00Z", "'2026-11-22T10:00:00Z'").replace("version: 2026-", "version: v2026-")
    for good in (dated, SMALLEST, "case: a\nconversation: hi", f"cases: [{json.dumps(yaml_data(SMALLEST))}]",
                 write.twin_text(a_case("a--typos", twin_of="a", perturbation="typos"), "ab" * 32)):  # fmt: skip
        jsonschema.validate(yaml_data(good), ours)
    for wrong in ("expekt: {}", "tools: {a: reed}", "expect: {max_steps: 0}", "expect: {calls: [{arguments: {}}]}"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml_data(SMALLEST + wrong), ours)


def test_the_example_of_the_documentation_is_a_case(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "evals.md").read_text().split("```yaml\n")[1].split("```")[0]
    put(tmp_path, "a.yaml", text)
    (case,), broken = loaded(tmp_path)
    assert (case.name, len(case.recorded), broken) == ("duplicate-charge", 2, [])
    jsonschema.validate(yaml_data(text), json.loads(schema.text()))
