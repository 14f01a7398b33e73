"""What a reversible rule hid comes back for those who hold the key, and for nobody else."""

import stat
from pathlib import Path

import pytest

from midwatch.contracts.control import Card, LogRule, RedactRule
from midwatch_services.logger.redaction import keys
from midwatch_services.logger.redaction.book import RedactionBook
from midwatch_services.logger.redaction.redactor import Redactor
from midwatch_services.logger.redaction.rules import compiled

RULES = (
    RedactRule(name="email", reversible=True),
    RedactRule(name="card"),
    RedactRule(name="born", field="b", reversible=True),
)
MAIL = "dana.moore@example.com"


def key(folder: Path, name: str = "redaction.key") -> keys.Keys:
    keys.create(folder / name)
    found = keys.read(folder / name)
    assert found is not None
    return found


def test_a_key_is_made_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "home" / "redaction.key"
    keys.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(keys.HasKey, match="--rotate"):
        keys.create(path)
    assert path.read_bytes() == before


def test_what_was_hidden_comes_back_with_the_key(tmp_path: Path) -> None:
    sealing = key(tmp_path)
    hidden = Redactor(compiled(RULES), "desk", sealing).value({"a": f"to {MAIL}, 4111111111111111", "b": {"y": 1985}})
    assert hidden["a"].startswith("to [email:1.") and hidden["a"].endswith(", [card]")
    assert MAIL not in hidden["a"] and "1985" not in hidden["b"]
    assert sealing.reveal(hidden["a"], "desk") == f"to {MAIL}, [card]"
    assert sealing.reveal(hidden["b"], "desk") == '{"y":1985}'


def test_another_key_or_another_agent_reads_nothing(tmp_path: Path) -> None:
    sealing, other = key(tmp_path), key(tmp_path, "other.key")
    hidden = Redactor(compiled(RULES), "desk", sealing).text(MAIL)
    assert other.reveal(hidden, "desk") == hidden
    assert sealing.reveal(hidden, "other-desk") == hidden
    assert sealing.reveal(hidden[:-3] + "AA]", "desk") == hidden[:-3] + "AA]"


def test_the_same_text_is_hidden_alike_so_that_a_redelivered_event_is_stored_alike(tmp_path: Path) -> None:
    redactor = Redactor(compiled(RULES), "desk", key(tmp_path))
    once = redactor.text(f"{MAIL} and {MAIL}")
    assert once.split(" and ")[0] == once.split(" and ")[1]
    assert redactor.text(once) == once
    assert redactor.value({"b": redactor.value({"b": 1})["b"]}) == redactor.value({"b": 1})


def test_what_only_looks_like_a_token_hides_nothing(tmp_path: Path) -> None:
    redactor = Redactor(compiled(RULES), "desk", key(tmp_path))
    forged = "[email:1.00000000.A-4111111111111111-AAAAAAAAAA]"
    assert "4111111111111111" not in redactor.text(forged)
    assert "4111111111111111" not in Redactor(compiled(), "desk").text(forged)


def test_an_old_key_still_reads_what_it_hid_after_a_new_one_was_put_before_it(tmp_path: Path) -> None:
    before = key(tmp_path)
    old = Redactor(compiled(RULES), "desk", before).text(MAIL)
    keys.create(tmp_path / "redaction.key", rotate=True)
    after = keys.read(tmp_path / "redaction.key")
    assert after is not None
    new = Redactor(compiled(RULES), "desk", after).text(MAIL)
    assert new != old
    assert (after.reveal(old, "desk"), after.reveal(new, "desk")) == (MAIL, MAIL)
    assert before.reveal(new, "desk") == new


@pytest.mark.parametrize("content", ["", "# only a comment\n", "short\n", "ä\n"])
def test_a_file_that_holds_no_key_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "k").write_text(content)
    with pytest.raises(keys.BadKey) as caught:
        keys.read(tmp_path / "k")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "k") in str(caught.value)


def test_the_key_stands_in_no_representation(tmp_path: Path) -> None:
    sealing = key(tmp_path)
    secret = (tmp_path / "redaction.key").read_text().splitlines()[1]
    assert secret not in repr(sealing) and "AESSIV" not in repr(sealing)


def test_a_key_that_appears_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "redaction.key"
    card = Card(agent="desk", owner="", purpose="", can=[], log=LogRule(redact=RULES))
    book = RedactionBook(lambda _: card, path)
    assert book.of("desk").text(MAIL) == "[email]"
    keys.create(path)
    assert book.of("desk").text(MAIL).startswith("[email:1.")
    path.write_text("broken\n")
    assert book.of("desk").text(MAIL) == "[email]"
