"""What the gate writes for machines and pull requests, from agents that write whatever they like."""

import re
import xml.etree.ElementTree as ET
from datetime import datetime
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from gate_helpers import case, pair, results
from midwatch_services.evals import junit, summary
from midwatch_services.evals.gate import Gate, compare
from midwatch_services.evals.outcome import Attempt, CaseResult, Finding, Results

HOSTILE = (
    "</failure><script>alert(1)</script>]]> \x00\x08\x1b[31m \ufffe &amp; \"' `` ` | \\| [a](http://evil.example) "
    "![x](https://evil.example/p.png) @security #1 https://evil.example www.evil.example a@evil.example \u202e\n\n"
    "# Passed\n\n| a | b |\n<!-- -->\n<img src=x onerror=alert(1)> midwatch/midwatch#7 GH-12 &#64;security \\`"
)


def hostile(name: str, said: str = HOSTILE) -> CaseResult:
    missed = [Finding(criterion="says", ok=False, said=said)]
    return CaseResult(case=name, hash=f"h-{name}", passed=False, gates=True, attempts=[
        Attempt(passed=False, findings=missed)])  # fmt: skip


def gate_of_hostile() -> tuple[Gate, Results]:
    names = [f"{n} {HOSTILE}" for n in range(6)]
    twin = case("t", "f", twin_of=HOSTILE, perturbation=HOSTILE)
    apart = [case(f"{HOSTILE} {n}", "f", gates=False, why_not=HOSTILE) for n in range(3)]
    new = results([*map(hostile, names), twin, *apart], HOSTILE, broken=[HOSTILE])
    return compare(new, results([case(name) for name in [*names, f"gone {HOSTILE}"]], HOSTILE)), new


def mixed() -> tuple[Gate, Results]:
    now = results([
        case("fell", "f"), case("bad", "f"), case("good"), case("new", "f"), case("hung", "e"),
        case("open", "f", gates=False, why_not="nobody agreed"),
        case("good-typos", "f", twin_of="good", perturbation="typos"),
    ])  # fmt: skip
    old = results([case("fell"), case("bad", "f"), case("good"), case("hung"), case("gone")], "old")
    return compare(now, old), now


def test_each_case_is_one_test_that_fails_errs_or_is_skipped_with_its_reason() -> None:
    root = ET.fromstring(junit.write(*mixed()))
    ended = {
        test.get("name"): (child.tag, child.get("type") or child.get("message")) if (child := next(iter(test), None))
        is not None else ("passed", None)
        for test in root.iter("testcase")
    }  # fmt: skip
    assert ended == {
        "fell": ("failure", "regression"),
        "bad": ("failure", "failed_before"),
        "good": ("passed", None),
        "new": ("failure", "new"),
        "open": ("skipped", "does not gate: nobody agreed: it failed"),
        "hung": ("error", "not_run"),
        "gone": ("skipped", "it was not replayed now"),
        "good-typos": ("skipped", "a stress twin (typos) of good, which does not gate: it failed"),
    }
    cases, twins = root
    assert {name: cases.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7", "failures": "3", "errors": "1", "skipped": "2"
    }  # fmt: skip
    assert (twins.get("tests"), twins.get("failures"), twins.get("skipped")) == ("1", "0", "1")
    failure = cases.find("testcase[@name='fell']/failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == (
        "lookup_order was not called", "replay 1: lookup_order was not called"
    )  # fmt: skip
    told = {one.get("name"): one.get("value") for one in cases.iter("property")}
    assert (told["verdict"], told["baseline"], told["regressions"]) == ("inconclusive", "old", "1")


# What Ant's schema (windyroad/JUnit-Schema) and Jenkins's (xunit-plugin, junit-10.xsd) both take.
CHILDREN = {
    "testsuites": ["testsuite"],
    "testsuite": ["properties", "testcase", "system-out", "system-err"],
    "properties": ["property"],
    "testcase": ["skipped", "error", "failure"],
}
ATTRIBUTES = {
    "testsuites": (set(), set()),
    "testsuite": (
        {"name", "package", "id", "hostname", "timestamp", "tests", "failures", "errors", "time"}, {"skipped"}
    ),
    "testcase": ({"name", "classname", "time"}, set()),
    "property": ({"name", "value"}, set()),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": (set(), {"message"}),
}  # fmt: skip


def obey(element: ET.Element) -> None:
    needed, free = ATTRIBUTES.get(element.tag, (set(), set()))
    assert needed <= set(element.keys()) <= needed | free, element.tag
    order = [CHILDREN.get(element.tag, []).index(child.tag) for child in element]
    assert order == sorted(order), element.tag
    assert element.tag != "testcase" or len(element) <= 1
    for child in element:
        obey(child)


@pytest.mark.parametrize("made", [mixed, gate_of_hostile])
def test_the_xml_is_of_the_shape_that_jenkins_and_ant_take(made: object) -> None:
    root = ET.fromstring(junit.write(*made()))  # type: ignore[operator]
    assert root.tag == "testsuites"
    obey(root)
    for number, suite in enumerate(root):
        assert suite.get("id") == str(number)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", str(suite.get("timestamp")))
        datetime.fromisoformat(str(suite.get("timestamp")))
        for tag, attribute in (
            ("testcase", "tests"),
            ("failure", "failures"),
            ("error", "errors"),
            ("skipped", "skipped"),
        ):
            assert len(list(suite.iter(tag))) == int(str(suite.get(attribute)))
        assert float(str(suite.get("time"))) >= 0


def test_hostile_text_is_text_in_the_xml_and_nothing_illegal_is_left_of_it() -> None:
    body = junit.write(*gate_of_hostile())
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", body.decode())
    root = ET.fromstring(body)
    assert {element.tag for element in root.iter()} == {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "skipped", "system-out",
        "system-err",
    }  # fmt: skip
    failure = next(root.iter("failure"))
    assert "<script>alert(1)</script>]]> \ufffd\ufffd\ufffd[31m" in str(failure.get("message"))


def test_the_summary_leads_with_verdict_and_regressions() -> None:
    new, old = pair(14, 2, 15, 11)
    lines = summary.markdown(compare(new, old)).splitlines()
    assert lines[0] == "## ❌ Failed: ` refund-desk ` ` new ` against ` old `"
    assert lines[2].startswith("It got worse: of 42 cases 14 fail that passed in the baseline")
    assert lines[4:9] == [
        "### Regressions (14)", "", "| case | first criterion missed |", "|---|---|",
        "| ` c0 ` | ` lookup_order was not called ` |",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "### Repaired (2)" in text
    assert "| cases that pass, of those compared | 17 of 42 | 29 of 42 |" in text
    assert "| cost of the replay | not known | not known |" in text
    assert "p = 0.0021. With 42 cases you could only have seen a drop of " in text


def rendered(text: str) -> list[str]:
    """What is more than text in the Markdown, as a GitHub-like renderer reads it; and all text outside code."""
    flat = []
    for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text):
        flat += [token, *(token.children or [])]
    assert not {"html_block", "html_inline", "link_open", "image", "fence", "code_block"} & {
        token.type for token in flat
    }
    return [token.content for token in flat if token.type == "text"]


def test_nothing_that_an_agent_wrote_is_markup_in_the_summary() -> None:
    gate, _ = gate_of_hostile()
    text = summary.markdown(gate)
    outside = " ".join(rendered(text))
    for word in ("evil", "@", "script", "security", "http", "www", "#1", "GH-12"):
        assert word not in outside, word
    assert text.count("\n## ") == 0
    assert [line for line in text.splitlines() if line.startswith("# ")] == []
    assert "evil.example" in text  # it is there, as code
    assert "\u202e" not in text


@pytest.mark.parametrize("said", ["`", "``` `", "|", "\\", "\\|", "\\`", "", "\n", " ` ", "a\\\\|b`c", "\x00"])
def test_no_text_ends_its_code_span_or_its_cell(said: str) -> None:
    new = results([hostile(f"c{n}", said) for n in range(6)])
    gate = compare(new, results([case(f"c{n}") for n in range(6)], "old"))
    parsed = MarkdownIt("commonmark").enable("table").parse(summary.markdown(gate))
    cells = [after for token, after in pairwise(parsed) if token.type == "td_open"]
    assert [one.type for one in cells[1].children or []] == ["code_inline"]
    assert len([token for token in parsed if token.type == "td_open"]) == 6 * 2 + 2 * 3


def test_the_summary_of_thousands_of_regressions_fits_and_says_how_many_are_left_out() -> None:
    new = results([hostile(f"case-{n:05} {'x' * 200}", HOSTILE * 20) for n in range(3_000)])
    old = results([case(one.case) for one in new.results], "old")
    text = summary.markdown(compare(new, old))
    assert len(text) <= 60_000
    assert "### Regressions (3,000)" in text
    left = re.search(r"… and ([\d,]+) more", text)
    assert left is not None
    assert int(left[1].replace(",", "")) + text.count("| ` case-") == 3_000
    rendered(text)
