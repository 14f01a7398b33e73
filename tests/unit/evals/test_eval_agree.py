"""Who agreed with what, and which cases gate; by the commands that people use."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eval_helpers import SMALLEST, a_case, midwatch, put
from midwatch_services.evals import agreeing, load
from midwatch_services.evals.case import Agreed, Case, Expect
from midwatch_services.evals.judge import gates

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WITH_COMMENTS = """\
# Why we keep this one: it went wrong twice.
case:   duplicate-charge   # the name
conversation:
    - "I was charged twice for order A-1001."

expect:
    # no more than she asked for
    writes: [{tool: issue_refund, arguments: {amount: 20.00}}]
recorded:
    - {tool: lookup_order, arguments: {order_id: A-1001}, result: 'paid'}   # as of then
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def the_case() -> Case:
    (case,), broken = load.load("desk")
    assert broken == []
    return case


def signed(*names: str, **asked: object) -> Case:
    expect = Expect(**asked)  # type: ignore[arg-type]
    return a_case(agreed=tuple(Agreed(name, "2026-11-22T12:00:00Z", expect.hash) for name in names), **asked)


@pytest.mark.parametrize(
    ("case", "does", "why"),
    [
        (signed("ana", "bo", hands_off=True), True, ""),
        (signed("ana", hands_off=True), False,
         "one more person has to agree with its criteria (`midwatch eval agree`)"),
        (signed("ana", " ANA ", hands_off=True), False,
         "one more person has to agree with its criteria (`midwatch eval agree`)"),
        (a_case(hands_off=True, agreed=(Agreed("ana", "", "0" * 64), Agreed("bo", "", "0" * 64))), False,
         "two people have to agree with its criteria (`midwatch eval agree`)"),
        (signed("ana", "bo"), False, "it asks nothing yet: fill in `expect`"),
        (signed("ana", "bo", judge="my:polite"), False,
         "its only criterion is the judge my:polite, with which people have not agreed often enough: add another, or "
         "`midwatch eval judge`"),
        (signed("ana", "bo", judge="my:polite", hands_off=True), True, ""),
        (a_case("a--typos", twin_of="a", hands_off=True), False, "a twin of a is reported and never gates"),
    ],
)  # fmt: skip
def test_a_case_gates_once_two_people_agree_with_it_as_it_stands(case: Case, does: bool, why: str) -> None:
    assert gates(case) == (does, why)


def test_agreeing_keeps_comments_and_changes_nothing_else(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", WITH_COMMENTS)
    before = the_case()
    after = agreeing.agree(before, "Ana  Lee", NOON)
    text = path.read_text()
    for comment in ("# Why we keep this one: it went wrong twice.", "# the name", "# no more than she asked for",
                    "# as of then"):  # fmt: skip
        assert comment in text
    assert '"I was charged twice for order A-1001."' in text and "amount: 20.00" in text
    assert after.agreed == (Agreed("Ana Lee", "2026-11-22T12:00:00Z", before.expect.hash),) == the_case().agreed
    assert after.hash == before.hash
    agreeing.agree(after, "bo", NOON)
    assert the_case().agrees == ("Ana Lee", "bo") and gates(the_case()) == (True, "")


def test_a_changed_criterion_takes_both_anew(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", WITH_COMMENTS)
    agreeing.agree(agreeing.agree(the_case(), "ana", NOON), "bo", NOON)
    path.write_text(path.read_text().replace("20.00", "25"))
    assert gates(the_case())[0] is False
    assert agreeing.agree(the_case(), "ana", NOON).agrees == ("ana",)


def test_one_of_a_list_is_agreed_on(tmp_path: Path) -> None:
    one, two = "  - case: one\n    conversation: [hi]\n", "  - case: two   # the second\n    conversation: [hi]\n"
    asked = "    expect: {says: x}\n"
    put(tmp_path, "a.yaml", f"cases:\n{one}{asked}{two}{asked}")
    _, second = load.load("desk")[0]
    agreeing.agree(second, "ana", NOON)
    assert [case.agrees for case in load.load("desk")[0]] == [(), ("ana",)]


def test_a_file_that_changed_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", WITH_COMMENTS)
    read = the_case()
    changed = WITH_COMMENTS.replace("20.00", "30")
    path.write_text(changed)
    with pytest.raises(agreeing.Changed, match="by: ana, at: 2026-11-22T12:00:00Z, hash: "):
        agreeing.agree(read, "ana", NOON)
    assert path.read_text() == changed


def test_the_command_asks_after_showing_what_is_asked_and_not_who_agreed(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", WITH_COMMENTS)
    assert midwatch("agree", "duplicate-charge", "--by", "ana", "--yes").exit_code == 0
    asked = midwatch("agree", "duplicate-charge", "--by", "bo", answer="n\n")
    assert asked.exit_code == 3 and "duplicate-charge: nothing was noted." in asked.output
    assert "1. Customer: I was charged twice for order A-1001." in asked.output
    assert "make exactly these writes succeed, and no others:" in asked.output
    assert "issue_refund with amount 20" in asked.output and "ana" not in asked.output
    assert midwatch("agree", "duplicate-charge", "--by", "bo").exit_code == 3  # nobody is there to answer
    done = midwatch("agree", "duplicate-charge", "--by", "bo", answer="y\n")
    assert done.exit_code == 0 and "It gates now." in done.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["duplicate-charge", "--by", "ANA "], "agrees with duplicate-charge as it stands already: it takes another"),
        (["duplicate-charge", "--by", " "], "say who you are with --by"),
        (["empty", "--by", "bo"], "it asks nothing yet; fill in `expect` in"),
        (["duplicate-charge--typos", "--by", "bo"], "it is a twin and asks what duplicate-charge asks: agree on that"),
        (["nowhere", "--by", "bo"], "there is no case nowhere in evals: `midwatch eval list AGENT` names them"),
    ],
)
def test_who_may_not_agree_is_told_why(tmp_path: Path, arguments: list[str], line: str) -> None:
    put(tmp_path, "a.yaml", WITH_COMMENTS)
    put(tmp_path, "b.yaml", SMALLEST.replace("duplicate-charge", "empty"))
    assert midwatch("agree", "duplicate-charge", "--by", "ana", "--yes").exit_code == 0
    assert midwatch("stress", "desk", "--kinds", "typos").exit_code == 0
    refused = midwatch("agree", *arguments, "--yes")
    assert refused.exit_code == 1 and line in refused.output


def test_list_says_which_cases_gate_and_why_the_others_do_not(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", WITH_COMMENTS)
    put(tmp_path, "b.yaml", SMALLEST.replace("duplicate-charge", "empty"))
    put(tmp_path, "c.yaml", "case: [")
    midwatch("agree", "duplicate-charge", "--by", "ana", "--yes")
    midwatch("agree", "duplicate-charge", "--by", "bo", "--yes")
    listed = midwatch("list", "desk")
    assert "2 cases, of which 1 gate" in listed.output and "it asks nothing yet: fill in `expect`" in listed.output
    assert "c.yaml:1: this is not YAML" in listed.output and listed.exit_code == 0
    rows = [json.loads(line) for line in midwatch("list", "desk", "--json").stdout.splitlines()]
    assert [(row["case"], row["gates"], row["agreed"]) for row in rows] == [
        ("duplicate-charge", True, 2), ("empty", False, 0)
    ]  # fmt: skip


def test_check_names_every_mistake_and_fails(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST)
    assert midwatch("check").exit_code == 0
    put(tmp_path, "b.yaml", "case: b\nconversation: hi\nexpekt: {}\nabuot: x\n")
    checked = midwatch("check", "desk")
    assert checked.exit_code == 1 and "desk: 1 case ok, 1 not" in checked.output
    assert "evals/desk/b.yaml:3: `expekt` is no key of a case: did you mean `expect`?" in checked.output
    assert "evals/desk/b.yaml:4: `abuot` is no key of a case: did you mean `about`?" in checked.output


def test_what_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    for arguments in (["list", "desk"], ["check", "desk"], ["check"], ["show", "x"], ["stress", "desk"]):
        told = midwatch(*arguments)
        assert told.exit_code == 1 and len(told.output.splitlines()) == 1
        assert "midwatch eval add RUN" in told.output
    assert midwatch("list", "../desk").exit_code == 1


def test_two_agents_may_have_a_case_of_one_name(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST)
    other = tmp_path / "evals" / "shop"
    other.mkdir()
    (other / "a.yaml").write_text(SMALLEST)
    told = midwatch("show", "duplicate-charge")
    assert told.exit_code == 1 and "desk, shop each have a case duplicate-charge: say whose with --agent" in told.output
    assert midwatch("show", "duplicate-charge", "--agent", "shop").exit_code == 0
