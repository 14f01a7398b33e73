"""The proof of one run is checked with nothing but it and the public key."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evidence_helpers import SealedLog, append_note, blank
from midwatch_services.logger import store
from midwatch_services.logger.evidence import chain, keys, proof, prove
from midwatch_services.logger.places import place


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SealedLog]:
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    made = SealedLog(url, tmp_path)
    made.fill()
    yield made
    made.database.close()


def dossier(log: SealedLog) -> dict[str, Any]:
    """As it comes back from a file."""

    def work(conn: Any) -> dict[str, Any]:
        return {
            "events": store.read_events(conn, "desk", "r-desk"),
            "proof": prove.prove(conn, "desk", "r-desk"),
        }

    made: dict[str, Any] = json.loads(json.dumps(log.database.read_now(work)))
    return made


def test_the_proof_of_a_run_is_whole_and_leads_to_signed_checkpoints(log: SealedLog) -> None:
    made = dossier(log)
    assert proof.check(made, log.public()) == []
    assert len(made["proof"]["events"]) == 20
    assert [[one["number"] for one in segment["headers"]] for segment in made["proof"]["segments"]] == [
        [1],
        [2],
        [3],
        [4],
    ]
    assert [segment["checkpoint"]["number"] for segment in made["proof"]["segments"]] == [1, 2, 3, 4]
    assert [len(one["path"]) for one in made["proof"]["events"][:5]] == [3, 3, 3, 3, 1]


def _body(made: dict[str, Any]) -> None:
    made["proof"]["events"][3]["body"] = made["proof"]["events"][3]["body"].replace('"e-7"}', '"e-8"}')


def _told(made: dict[str, Any]) -> None:
    made["events"][3]["data"]["text"] = "I never said that"


def _left_out(made: dict[str, Any]) -> None:
    del made["events"][3]


def _put_in(made: dict[str, Any]) -> None:
    made["events"].append({**made["events"][3], "id": "forged"})


def _head(made: dict[str, Any]) -> None:
    made["proof"]["segments"][1]["headers"][0]["root"] = "00" * 32


def _signature(made: dict[str, Any]) -> None:
    made["proof"]["segments"][1]["checkpoint"]["at"] = "2026-11-22T12:00:11.000000Z"


def _index(made: dict[str, Any]) -> None:
    made["proof"]["events"][3]["index"] = 2


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (_body, "event said e-7 (seq 3) was altered: it does not hash to its leaf"),
        (_told, "event said e-7 is told with another content than it is proved"),
        (_left_out, "event said e-7 is proved and not told"),
        (_put_in, "event forged is told and not proved"),
        (_head, "block 2 of desk was altered: its head is not the hash of its header"),
        (_signature, "checkpoint 2 is forged"),
        (_index, "event said e-7 (seq 3) is not in block 1: it was altered, or put in"),
        (lambda made: made.pop("proof"), "the dossier has no proof that this release can read (version 1)"),
    ],
)
def test_what_was_done_to_a_dossier_is_named(
    log: SealedLog, edit: Callable[[dict[str, Any]], Any], wanted: str
) -> None:
    made = dossier(log)
    edit(made)
    assert wanted in proof.check(made, log.public())


def test_a_checkpoint_of_another_key_proves_nothing(log: SealedLog) -> None:
    keys.load_or_make(log.folder / "other.key")
    problems = proof.check(dossier(log), keys.load_public(log.folder / "other.pub"))
    assert problems[0] == f"checkpoint 1 is signed with the key {log.key.id}, none of the given ones"


def test_what_is_not_sealed_or_signed_yet_is_said(log: SealedLog) -> None:
    log.store()
    assert proof.check(dossier(log), log.public()) == [
        "event said e-41 (seq 20) is not sealed yet: make the dossier again in a minute"
    ]
    log.seal()
    assert proof.check(dossier(log), log.public()) == [
        "no checkpoint was signed yet that covers all of the run: make the dossier again in a minute"
    ]
    log.sign()
    assert proof.check(dossier(log), log.public()) == []


def test_an_erased_event_is_proved_by_what_is_left_of_it_and_the_erasure(log: SealedLog) -> None:
    blank(log, "e-7", "er-1")
    assert proof.check(dossier(log), log.public()) == [
        "event said e-7 (seq 3) was blanked, and no erasure in the proof lists it"
    ]
    append_note(log, "desk", "erasure", chain.erasure_note("er-1", "2026-11-22T13:00:00Z", "sam", [place(1, 7)]))
    log.sign()
    assert proof.check(dossier(log), log.public()) == []


def test_a_row_that_is_not_what_its_events_make_of_it_is_named(log: SealedLog) -> None:
    def disagreeing() -> list[str]:
        return log.database.read_now(lambda conn: prove.disagreeing(conn, "desk", "r-desk"))

    assert disagreeing() == []
    log.run("UPDATE logger_runs SET messages = 3 WHERE run_id = 'r-desk'")
    assert disagreeing() == ["the messages in the row of run r-desk is not what its events make of it"]
    log.run("DELETE FROM logger_events WHERE id = 'e-7'")
    assert disagreeing() == ["the row of run r-desk counts 20 events, and 19 are there"]
    log.run("DELETE FROM logger_runs WHERE run_id = 'r-desk'")
    assert disagreeing() == ["the row of run r-desk is missing, and 19 of its events are there"]
