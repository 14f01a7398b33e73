"""Perturbed twins: what the customer says is messier, what is asked stays."""

from pathlib import Path
from typing import Any

import pytest

from eval_helpers import SMALLEST, a_case, midwatch, put, recorded
from midwatch_services.evals import load, stress, stressing
from midwatch_services.evals.case import Case
from midwatch_services.evals.stress_words import FRAMES, INSTRUCTIONS

SAID = "Hello, please refund the second charge for order #W-1001 to maria_lopez_77 (maria@example.org), Maria Lopez."
CASE = a_case(
    turns=(SAID, "Yes, please go ahead with the refund."),
    recorded=(recorded("lookup", name="Maria Lopez", order="#W-1001"),),
    hands_off=False,
)
OTHER = a_case("late-parcel", turns=("Where is my parcel? It should have come on Monday.",))
TYPOS = (
    "Hello, please refund the second charge for otder #W-1001 to maria_lopez_77 (maria@example.org), Maria Lopez.",
    "Yes, please go ahead with the rfund.",
)
SEVERAL = (
    "Where is my parcel? It should have come on Monday. Oh, and also, Hello, please refund the second cha"
    "rge for order #W-1001 to maria_lopez_77 (maria@example.org), Maria Lopez."
)
NEEDED = ("#W-1001", "maria_lopez_77", "maria@example.org", "Maria", "Lopez")


def twin(kind: Any, case: Case = CASE, others: tuple[Case, ...] = (CASE, OTHER), **wish: Any) -> Case:
    (made,) = stress.twins(case, others, stress.Wish(kinds=(kind,), **wish))
    return made


@pytest.mark.parametrize("kind", ["typos", "shouting", "several", "language", "instruct"])
def test_a_twin_asks_what_its_case_asks_and_is_the_same_each_time(kind: str) -> None:
    made = twin(kind)
    assert made == twin(kind)
    assert (made.name, made.twin_of, made.perturbation) == (f"duplicate-charge--{kind}", "duplicate-charge", kind)
    assert (made.expect, made.recorded, made.agreed) == (CASE.expect, CASE.recorded, ())
    assert made.turns != CASE.turns and len(made.turns) == 2
    assert all(word in made.turns[0] for word in NEEDED)


def test_the_same_twins_are_made_on_every_machine() -> None:
    # Written down once: another Python, another hash seed and another order of cases give the same.
    assert twin("typos", seed=7).turns == TYPOS
    assert twin("several", seed=7).turns[0] == twin("several", others=(OTHER, CASE), seed=7).turns[0] == SEVERAL


def test_another_seed_makes_other_twins() -> None:
    assert len({twin("typos", seed=seed).turns for seed in range(20)}) > 10
    assert len({twin("instruct", seed=seed).turns for seed in range(60)}) > 10


@pytest.mark.parametrize("seed", range(30))
def test_typos_are_few_and_keep_what_tools_need(seed: int) -> None:
    made = twin("typos", seed=seed).turns[0]
    before, after = SAID.split(), made.split()
    assert len(before) == len(after)
    changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert 1 <= len(changed) <= 3
    assert all(one[0] == other[0] and abs(len(one) - len(other)) <= 1 for one, other in changed)
    assert all(word in made for word in NEEDED)


def test_shouting_has_capitals_and_no_punctuation() -> None:
    assert twin("shouting").turns == (
        "HELLO PLEASE REFUND THE SECOND CHARGE FOR ORDER #W-1001 TO maria_lopez_77 maria@example.org Maria Lopez",
        "YES PLEASE GO AHEAD WITH THE REFUND",
    )


def test_several_has_another_cases_first_request_in_the_first_message() -> None:
    made = twin("several").turns
    assert SAID in made[0] and OTHER.turns[0] in made[0] and made[1] == CASE.turns[1]
    orders = {twin("several", seed=seed).turns[0].index(SAID) < 20 for seed in range(20)}
    assert orders == {True, False}
    assert list(stress.twins(CASE, (CASE,), stress.Wish(kinds=("several",)))) == []
    same_task = a_case("again", task="t", turns=("Again.",))
    assert list(stress.twins(a_case(task="t"), (same_task,), stress.Wish(kinds=("several",)))) == []


@pytest.mark.parametrize("language", ["de", "fr", "es", "it"])
def test_language_frames_the_customers_own_words(language: str) -> None:
    before, after = FRAMES[language]
    assert twin("language", language=language).turns == (f"{before}\n\n{SAID}\n\n{after}", CASE.turns[1])


def test_a_translation_is_the_users_own_and_keeps_what_tools_need() -> None:
    made = twin("language", language="xx", translate=lambda text, language: f"{language}: {text.upper()}")
    assert made.turns[1] == "xx: YES, PLEASE GO AHEAD WITH THE REFUND."
    with pytest.raises(stress.LostInTranslation, match="of duplicate-charge lost 1001, which tools need"):
        twin("language", translate=lambda text, language: "Bonjour")
    with pytest.raises(stress.NotTranslated, match="duplicate-charge: it raised ZeroDivisionError: "):
        twin("language", translate=lambda text, language: str(1 // 0))
    with pytest.raises(stress.NotTranslated, match="it gave None"):
        twin("language", translate=lambda text, language: None)
    with pytest.raises(stress.NoLanguage, match="'xx' is no language that sentences are written for"):
        twin("language", language="xx")


def test_instruct_adds_one_of_the_attempts_to_one_message() -> None:
    made = twin("instruct")
    added = [turn.removeprefix(before) for before, turn in zip(CASE.turns, made.turns, strict=True) if turn != before]
    assert len(added) == 1 and added[0].strip() in INSTRUCTIONS


@pytest.mark.parametrize("said", ["ok", "?!", "A-1001", "x" * 300, "日本語です", "…", "It's 5 o'clock"])
def test_no_message_is_too_odd(said: str) -> None:
    case = a_case(turns=(said,))
    for made in stress.twins(case, (case, OTHER), stress.Wish()):
        assert made.turns[0].strip()


def test_twins_are_loaded_with_their_case_and_are_void_once_it_changes(tmp_path: Path) -> None:
    path = put(tmp_path, "a.yaml", SMALLEST + "expect: {hands_off: false}\n")
    folder = tmp_path / "evals" / "desk"
    stressing.write_twins(folder, load.load(folder)[0], stress.Wish(kinds=("typos", "instruct")))
    (case, instruct, typos), broken = load.load(folder)
    assert broken == [] and (typos.twin_of, typos.expect) == (case.name, case.expect)
    assert instruct.perturbation == "instruct" and instruct.turns != case.turns
    path.write_text(path.read_text().replace("false", "true"))
    cases, broken = load.load(folder)
    assert [one.name for one in cases] == ["duplicate-charge"]
    assert broken == [
        f"{folder}/stress/duplicate-charge--{kind}.yaml:2: its case `duplicate-charge` has changed since: "
        "`midwatch eval stress` makes it anew"
        for kind in ("instruct", "typos")
    ]
    stressing.write_twins(folder, cases, stress.Wish(kinds=("typos", "instruct")))
    assert len(load.load(folder)[0]) == 3
    path.unlink()
    assert load.load(folder)[1][0].endswith("is not in the set: mend that one, or remove the twin")


def test_the_command_counts_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a.yaml", SMALLEST)
    (tmp_path / "my_words.py").write_text("def french(text, language):\n    return f'{language} {text}'\n")
    done = midwatch("stress", "desk")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "typos: 1 twin", "shouting: 1 twin", "several: 0 twins (there is no other case to take a request from)",
        "language: 1 twin", "instruct: 1 twin",
    ]  # fmt: skip
    done = midwatch("stress", "desk", "--kinds", "language", "--language", "fr", "--translate", "my_words:french")
    assert done.exit_code == 0
    (found,) = (case for case in load.load("desk")[0] if case.perturbation == "language")
    assert found.turns == ("fr I was charged twice for order A-1001.",)
    assert midwatch("stress", "desk", "--kinds", "typo").exit_code == 2
    told = midwatch("stress", "desk", "--translate", "nowhere:f")
    assert told.exit_code == 1 and "nowhere:f cannot be used (there is no module nowhere)" in told.output
