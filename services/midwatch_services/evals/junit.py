"""The gate as JUnit XML, as Jenkins, GitLab and others read it. What agents wrote is in it, as text only. Pure."""

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from .gate import Apart, Gate, first_miss, is_known
from .outcome import CaseResult, Results

LIMIT = 2000  # characters of what is said of one case
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def write(gate: Gate, new: Results) -> bytes:
    """The document: one test a case. A case fails where it fails now, whatever the baseline did; what does not gate is
    skipped, with the reason and how it ended. The verdict is a property: it is the gate's and no test's."""
    root = ET.Element("testsuites")
    own = [case for case in new.results if not case.twin_of]
    twins = [case for case in new.results if case.twin_of]
    _suite(root, gate, new, "cases", own, with_gone=True)
    if twins:
        _suite(root, gate, new, "stress twins", twins)
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _suite(
    root: ET.Element, gate: Gate, new: Results, name: str, cases: list[CaseResult], with_gone: bool = False
) -> None:
    apart = {one.case: one for one in gate.apart}
    at = datetime.fromisoformat(new.at).astimezone(UTC)
    suite = ET.SubElement(root, "testsuite", {
        "name": _text(f"{gate.agent} {gate.version}: {name}"), "package": "midwatch.eval", "id": str(len(root)),
        "hostname": "localhost", "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}",
    })  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(gate).items():
        ET.SubElement(properties, "property", {"name": key, "value": _text(value)})
    regressions = {one.case for one in gate.regressions}
    for case in cases:
        test = _test(suite, gate, case.case, sum(attempt.outcome.seconds for attempt in case.attempts))
        kind = "regression" if case.case in regressions else "failed_before" if gate.baseline else "failed"
        _outcome(test, case, apart.get(case.case), kind)
    for one in gate.apart if with_gone else ():
        if one.kind == "gone":
            ET.SubElement(_test(suite, gate, one.case, 0), "skipped", {"message": one.said})
    tests = suite.findall("testcase")
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(test.find(tag) is not None for test in tests)))
    suite.set("tests", str(len(tests)))
    suite.set("time", f"{sum(float(test.get('time', 0)) for test in tests):.3f}")
    ET.SubElement(suite, "system-out").text = _text(gate.why)
    ET.SubElement(suite, "system-err").text = _text("\n".join(gate.broken))


def _test(suite: ET.Element, gate: Gate, name: str, seconds: float) -> ET.Element:
    place = {"name": _text(name), "classname": _text(f"midwatch.eval.{gate.agent}"), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", place)


def _outcome(test: ET.Element, case: CaseResult, apart: Apart | None, kind: str) -> None:
    ended = "passed" if case.passed else "failed"
    if case.twin_of:
        said = f"a stress twin ({case.perturbation}) of {case.twin_of}, which does not gate: it {ended}"
        ET.SubElement(test, "skipped", {"message": _text(said)}).text = _findings(case)
    elif apart and apart.kind == "not_run":
        ET.SubElement(test, "error", {"type": "not_run", "message": _text(apart.said)})
    elif not case.gates:
        said = f"does not gate: {apart.said if apart else case.why_not}: it {ended}"
        ET.SubElement(test, "skipped", {"message": _text(said)}).text = _findings(case)
    elif not case.passed and not is_known(case):
        ET.SubElement(test, "error", {"type": "not_run", "message": _text(first_miss(case))})
    elif not case.passed:
        place = {"type": apart.kind if apart else kind, "message": _text(first_miss(case))}
        ET.SubElement(test, "failure", place).text = _findings(case)


def _findings(case: CaseResult) -> str | None:
    lines = []
    for number, attempt in enumerate(case.attempts, 1):
        missed = [finding.said for finding in attempt.findings if not finding.ok]
        missed += [attempt.outcome.error] if attempt.outcome.error else []
        lines += [f"replay {number}: {one}" for one in missed]
    return _text("\n".join(lines)) or None


def _properties(gate: Gate) -> dict[str, str]:
    return {
        "verdict": gate.verdict, "why": gate.why, "agent": gate.agent, "version": gate.version,
        "baseline": gate.baseline, "compared": str(gate.cases), "regressions": str(len(gate.regressions)),
        "repaired": str(len(gate.repaired)), "p": "" if gate.p_value is None else f"{gate.p_value:.4g}",
        "sees": "" if gate.sees is None else f"{gate.sees:g}", "unstable": str(len(gate.unstable)),
        "eval_set": gate.eval_set,
    }  # fmt: skip


def _text(text: str) -> str:
    legal = _ILLEGAL.sub("\ufffd", text)
    return legal if len(legal) <= LIMIT else f"{legal[: LIMIT - 1]}…"
