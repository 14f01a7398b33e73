"""Judges of the user's own: found, asked, held against people; whatever they do, one line comes of it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from eval_helpers import SMALLEST, a_case, put
from midwatch_services.evals import judges, load, trusted
from midwatch_services.evals.case import Message
from midwatch_services.evals.judge import gates
from midwatch_services.evals.judges import Judged, ask, kappa, load_judge
from midwatch_services.evals.outcome import Outcome

CASE = a_case(earlier=(Message("agent", "Hi!"),), turns=("One.", "Two."))
CAME = Outcome(said=["First.", "Second.", "Third."], handed_off=True)


def test_a_judge_gets_the_conversation_and_what_was_done() -> None:
    got: list[Any] = []

    def judge(conversation: list[dict[str, str]], outcome: dict[str, Any]) -> bool:
        got.extend([[(one["role"], one["text"]) for one in conversation], outcome["handed_off"], outcome["said"]])
        return True

    assert asyncio.run(ask(judge, CASE, CAME)) == Judged(True)
    assert got == [
        [("agent", "Hi!"), ("customer", "One."), ("agent", "First."), ("customer", "Two."), ("agent", "Second."),
         ("agent", "Third.")],
        True, ["First.", "Second.", "Third."],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "judged"),
    [
        (False, Judged(False)),
        ({"passed": True, "why": "kind words"}, Judged(True, "kind words")),
        ({"passed": False}, Judged(False)),
        (None, Judged(None, "it answered None, not true, false or {'passed': …, 'why': …}")),
        (1, Judged(None, "it answered 1, not true, false or {'passed': …, 'why': …}")),
        ("yes", Judged(None, "it answered 'yes', not true, false or {'passed': …, 'why': …}")),
    ],
)
def test_an_answer_is_yes_or_no(answer: Any, judged: Judged) -> None:
    async def later(*_: Any) -> Any:
        return answer

    assert asyncio.run(ask(lambda *_: answer, CASE, CAME)) == judged
    assert asyncio.run(ask(later, CASE, CAME)) == judged
    assert asyncio.run(ask(lambda *_: later(), CASE, CAME)) == judged


def test_a_judge_that_fails_or_hangs_gives_no_answer() -> None:
    def broken(*_: Any) -> bool:
        raise ValueError("no\nkey")

    def leaving(*_: Any) -> bool:
        raise SystemExit(3)

    assert asyncio.run(ask(broken, CASE, CAME)) == Judged(None, "it raised ValueError: no key")
    assert asyncio.run(ask(leaving, CASE, CAME)) == Judged(None, "it raised SystemExit: 3")
    begun = time.monotonic()
    hanging = asyncio.run(ask(lambda *_: time.sleep(30), CASE, CAME, timeout=0.05))
    assert hanging == Judged(None, "no answer within 0.05 s")
    assert time.monotonic() - begun < 10  # nothing waits for its thread


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("my_judges", "it is not `module:function`"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("my_judges:nobody", "my_judges has no nobody"),
        ("my_judges:NUMBER", "it is no function"),
        ("needs_more:f", "it needs no_such_library"),
        ("is_broken:f", "SyntaxError: "),
    ],
)
def test_a_judge_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_judges.py").write_text("NUMBER = 1\n")
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    (tmp_path / "is_broken.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(judges.NoFunction) as error:
        load_judge(spec)
    assert why in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        # 20 yes of both, 5 and 10 apart, 15 no of both: agreed 0.7, by chance 0.5 (Cohen's own way of counting).
        ([(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15, 0.4),
        ([(True, True)] * 3 + [(False, False)] * 3, 1.0),
        ([(True, False), (False, True)], -1.0),
        ([(True, True)] * 9, None),
        ([], None),
    ],
)
def test_kappa(pairs: list[tuple[bool, bool]], wanted: float | None) -> None:
    found = kappa(pairs)
    assert found == wanted if wanted is None else found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("known", "does"),
    [
        ("- {judge: 'my:polite', runs: 40, agreed: 36, at: 2026-11-22, kappa: 0.71}", True),
        ("- {judge: 'my:polite', runs: 30, agreed: 29, at: 2026-11-22, kappa: 0.9}", False),
        ("- {judge: 'my:polite', runs: 300, agreed: 270, at: 2026-11-22, kappa: 0.1}", False),
        ("- {judge: 'my:polite', runs: 40, agreed: 40, at: 2026-11-22}", False),
        ("- {judge: 'my:other', runs: 40, agreed: 40, at: 2026-11-22, kappa: 1}", False),
    ],
)
def test_a_judge_stands_alone_once_people_agreed_with_it(tmp_path: Path, known: str, does: bool) -> None:
    folder = tmp_path / "evals" / "desk"
    put(tmp_path, trusted.FILE, known)
    put(tmp_path, "a.yaml", SMALLEST + "expect: {judge: 'my:polite'}\n")
    (case,), _ = load.load(folder)
    agreed = "\n".join(f"  - {{by: {name}, at: now, hash: '{case.expect.hash}'}}" for name in ("ana", "bo"))
    put(tmp_path, "a.yaml", SMALLEST + f"expect: {{judge: 'my:polite'}}\nagreed:\n{agreed}\n")
    (case,), broken = load.load(folder)
    assert (gates(case)[0], broken) == (does, [])


def test_a_file_of_judges_that_cannot_be_read_trusts_nobody_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "a.yaml", SMALLEST)
    put(tmp_path, trusted.FILE, "- judge: my:polite\n  runs: many\n")
    cases, (line,) = load.load(tmp_path / "evals" / "desk")
    assert len(cases) == 1 and "judges.yaml:2: this is no list of judges: `midwatch eval judge AGENT" in line
