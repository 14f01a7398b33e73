"""Whoever alters, takes out, puts in or moves a record of the log is found, and the record is named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from evidence_helpers import SealedLog, append_note, blank, copy, record, rewrite, told
from midwatch_services.logger.evidence import chain, chain_store, checkpoint_store, checkpoints, keys, sequencer
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


def test_a_log_that_nobody_touched_is_whole(log: SealedLog) -> None:
    log.store()
    report = log.check()
    assert report.is_whole, report.findings
    figures = (report.events, report.sealed, report.unsealed, report.blocks, report.checkpoints)
    assert figures == (42, 40, 2, 8, 4)
    assert report.oldest_unsealed == "2026-11-22T12:00:20.001000Z"


def test_one_flipped_byte_is_named(log: SealedLog) -> None:
    body = log.one("SELECT body FROM logger_events WHERE id = 'e-7'")
    log.run("UPDATE logger_events SET body = :body WHERE id = 'e-7'", body=body.replace('"e-7"}', '"e-8"}'))
    log.run("UPDATE logger_events SET seq = 99 WHERE id = 'e-20'")
    report = log.check()
    assert told(report) == [("altered", "e-7"), ("altered", "e-20")]
    assert report.findings[0].text == (
        "event said e-7 of run r-desk (agent desk, sequence 7, stored 2026-11-22T12:00:03.001000Z) was altered: "
        "it does not hash to the leaf beside it"
    )


def test_an_altered_record_with_a_new_leaf_beside_it_is_named(log: SealedLog) -> None:
    body = log.one("SELECT body FROM logger_events WHERE id = 'e-7'").replace('"e-7"}', '"xxx"}')
    rewrite(log, "e-7", body=body)
    report = log.check()
    assert told(report) == [("altered", "e-7")]
    assert report.findings[0].text.endswith("was altered: it does not hash to what was sealed at its place")


def test_one_deleted_record_is_named_by_its_place(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id = 'e-8'")
    report = log.check()
    assert told(report) == [("missing", "other")]
    assert report.findings[0].text == (
        "the event at sequence 8 (agent other) is missing: block 1, made 2026-11-22T12:00:05.000000Z, has its leaf; it "
        "came after event said e-6 of run r-other (agent other, sequence 6, stored 2026-11-22T12:00:02.001000Z)"
    )


def test_one_inserted_record_is_named_though_its_leaf_is_right(log: SealedLog) -> None:
    copy(log, "e-7", id="forged", place=place(1, 3))
    copy(log, "e-7", id="forged-2", place=place(1, 40))
    report = log.check()
    assert told(report) == [("inserted", "forged"), ("inserted", "forged-2")]
    assert report.findings[0].text == (
        "event said forged of run r-desk (agent desk, sequence 3, stored 2026-11-22T12:00:03.001000Z) was inserted: "
        "the chain has no such record"
    )


def test_two_records_that_changed_places_are_named(log: SealedLog) -> None:
    rewrite(log, "e-7", place=place(1, 11))
    rewrite(log, "e-11", place=place(1, 7))
    report = log.check()
    assert told(report) == [("reordered", "e-11"), ("reordered", "e-7")]
    assert report.findings[0].text == (
        "event said e-11 of run r-desk (agent desk, sequence 7, stored 2026-11-22T12:00:05.001000Z) was sealed at "
        "sequence 11"
    )


def test_a_tail_cut_with_its_blocks_is_shown_by_the_checkpoints(log: SealedLog) -> None:
    cut_the_tail(log)
    report = log.check()
    assert ("truncated", "desk") in told(report)
    texts = [finding.text for finding in report.findings]
    assert (
        "checkpoint 4, signed 2026-11-22T12:00:20.000000Z, names block 4 of desk, and its chain ends at block 3: "
        "its last block is gone"
    ) in texts
    assert (
        "checkpoint 4, signed 2026-11-22T12:00:20.000000Z, is in the file and not in the log: the log was cut" in texts
    )


def test_a_tail_cut_with_its_blocks_and_checkpoints_is_shown_by_those_in_the_database_alone(log: SealedLog) -> None:
    cut_the_tail(log, with_checkpoints=False)
    assert told(log.check(outside=False)) == [("truncated", "desk"), ("truncated", "other")]


def test_a_chain_written_anew_is_shown_by_the_checkpoint(log: SealedLog) -> None:
    body = log.one("SELECT body FROM logger_events WHERE id = 'e-17'").replace('"e-17"}', '"xx17"}')
    rewrite(log, "e-17", body=body)
    chain_anew(log, "desk")
    report = log.check()
    assert told(report) == [("chain", "desk")]
    assert report.findings[0].text == (
        "checkpoint 4, signed 2026-11-22T12:00:20.000000Z, names block 4 of desk with another head: the chain was "
        "written anew, after block 1, which still agrees with one"
    )


def test_a_checkpoint_of_another_key_is_named(log: SealedLog) -> None:
    body = log.one("SELECT body FROM logger_events WHERE id = 'e-37'").replace('"e-37"}', '"xx37"}')
    rewrite(log, "e-37", body=body)
    chain_anew(log, "desk")
    forge_last_checkpoint(log, keys.load_or_make(log.folder / "attacker.key"))
    report = log.check()
    texts = [finding.text for finding in report.findings]
    assert any(
        text.startswith("checkpoint 4 in the log is signed with the key") and "it is forged" in text for text in texts
    )
    assert "checkpoint 4, signed 2026-11-22T12:00:20.000000Z, is another in the file than in the log" in texts
    assert any("names block 4 of desk with another head" in text for text in texts)


def test_a_signature_of_another_key_under_the_name_of_ours_is_named(log: SealedLog) -> None:
    attacker = keys.load_or_make(log.folder / "attacker.key")
    attacker.id = log.key.id
    forge_last_checkpoint(log, attacker)
    texts = [finding.text for finding in log.check(outside=False).findings]
    assert texts == [f"checkpoint 4 in the log is not signed by the key {log.key.id}: it was altered or forged"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("leaves = other.leaves", "its leaves were altered"),
        ("count = 6", "its head is not the hash of its header"),
        ("previous = other.head", "it names another head for the block before it"),
    ],
)
def test_a_broken_chain_is_named_by_its_block(log: SealedLog, change: str, what: str) -> None:
    column, value = change.split(" = ")
    if value.startswith("other."):
        value = f"(SELECT {value[6:]} FROM logger_blocks WHERE agent = 'other' AND number = 2)"
    log.run(f"UPDATE logger_blocks SET {column} = {value} WHERE agent = 'desk' AND number = 2")
    texts = [finding.text for finding in log.check().findings]
    assert any(text == f"block 2 of the chain of desk is broken: {what}" for text in texts), texts


def test_a_block_taken_out_of_the_middle_is_named(log: SealedLog) -> None:
    log.run("DELETE FROM logger_blocks WHERE agent = 'desk' AND number = 2")
    texts = [finding.text for finding in log.check().findings]
    assert "block 3 of the chain of desk is broken: it follows block 1: those between are missing" in texts


def test_a_blanked_text_is_whole_where_an_erasure_lists_it_and_named_where_none_does(log: SealedLog) -> None:
    blank(log, "e-7", "er-1")
    blank(log, "e-9", "er-1")
    append_note(log, "desk", "erasure", chain.erasure_note("er-1", "2026-11-22T13:00:00Z", "sam", [place(1, 7)]))
    report = log.check()
    assert (told(report), report.erased) == ([("blanked", "e-9")], 1)
    assert report.findings[0].text.endswith("was blanked, and no erasure in the chain lists it")


def test_an_erasure_whose_note_was_altered_excuses_nothing(log: SealedLog) -> None:
    blank(log, "e-7", "er-1")
    append_note(log, "desk", "erasure", chain.erasure_note("er-1", "2026-11-22T13:00:00Z", "sam", []))
    note = chain.encode_note(chain.erasure_note("er-1", "2026-11-22T13:00:00Z", "sam", [place(1, 7)]))
    log.run("UPDATE logger_blocks SET note = :note WHERE kind = 'erasure'", note=note)
    texts = [finding.text for finding in log.check().findings]
    assert texts[0].endswith("was blanked, and no erasure in the chain lists it")
    assert "block 5 of the chain of desk is broken: its note was altered" in texts


def test_removed_records_are_whole_where_a_removal_lists_them_and_no_more_than_it_lists(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id IN ('e-1', 'e-3')")
    note = chain.removal_note("older than 400 days", "2026-11-22T13:00:00Z", [(place(1, 1), place(1, 5), 2)])
    append_note(log, "desk", "removal", note)
    report = log.check()
    assert (told(report), report.removed) == ([], 2)
    log.run("DELETE FROM logger_events WHERE id = 'e-5'")
    [finding] = log.check().findings
    assert finding.text == (
        "3 events of agent desk are missing between sequence 1 and sequence 5, and the removals in its chain list 2"
    )


def test_a_record_said_to_be_older_than_the_evidence_is_counted_as_not_proved(log: SealedLog) -> None:
    copy(log, "e-7", id="old", place=0, salt=None, leaf=None)
    report = log.check()
    assert (report.is_whole, report.unproved) == (True, 1)


def test_a_record_whose_leaf_was_taken_out_is_named(log: SealedLog) -> None:
    log.run("UPDATE logger_events SET leaf = NULL, salt = NULL WHERE id = 'e-7'")
    assert told(log.check()) == [("altered", "e-7")]


def test_a_record_made_older_than_the_evidence_is_missed_at_its_place(log: SealedLog) -> None:
    log.run("UPDATE logger_events SET leaf = NULL, salt = NULL, place = 0 WHERE id = 'e-7'")
    assert told(log.check()) == [("missing", "desk")]


def test_only_one_agent_or_a_span_of_time_is_looked_at_where_that_is_asked(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id = 'e-8'")
    assert log.check(only="desk").is_whole
    assert told(log.check(only="other")) == [("missing", "other")]


def test_a_late_event_is_waiting_and_then_sealed(log: SealedLog) -> None:
    def late(conn: Connection) -> None:
        chain_store.note_late(conn, [("desk", place(1, 100), record(log, "forged").leaf)])

    log.run("UPDATE logger_cursors SET place = :place WHERE name = 'sequencer'", place=place(1, 200))
    copy(log, "e-7", id="forged", place=place(1, 100))
    assert told(log.check()) == [("inserted", "forged")]
    log.database.write_now(late)
    assert log.check().unsealed == 1
    found = log.database.read_now(lambda conn: sequencer.read_next(conn, place(1, 200)))
    assert log.database.write_now(lambda conn: sequencer.seal(conn, found, log.at))
    report = log.check()
    assert (report.is_whole, report.sealed) == (True, 41)


# What the attacker does


def cut_the_tail(log: SealedLog, *, with_checkpoints: bool = True) -> None:
    log.run(
        "DELETE FROM logger_events WHERE place > :place",
        "DELETE FROM logger_blocks WHERE number = 4",
        "UPDATE logger_cursors SET place = :place WHERE name = 'sequencer'",
        place=place(1, 30),
    )
    if with_checkpoints:
        log.run(
            "DELETE FROM logger_checkpoints WHERE number = 4", "DELETE FROM logger_checkpoint_heads WHERE block = 4"
        )


def chain_anew(log: SealedLog, agent: str) -> None:
    """All blocks of an agent, made again from what the records are now."""

    def work(conn: Connection) -> None:
        before = list(chain_store.blocks(conn, agent))
        conn.exec_driver_sql(f"DELETE FROM logger_blocks WHERE agent = '{agent}'")
        for block in before:
            rows = conn.exec_driver_sql(
                f"SELECT place, leaf FROM logger_events WHERE agent = '{agent}' "
                f"AND place >= {block.first_place} AND place <= {block.last_place} ORDER BY place"
            )
            parts = chain.cut(agent, chain.pack((at, bytes(leaf)) for at, leaf in rows))
            chain_store.append_parts(conn, parts, log.at)

    log.database.write_now(work)


def forge_last_checkpoint(log: SealedLog, key: keys.SigningKey) -> None:
    """The newest checkpoint, made again over what the chains are now, signed by another."""

    def work(conn: Connection) -> None:
        made = checkpoints.make(
            checkpoint_store.get(conn, 3), chain_store.tails(conn), "2026-11-22T12:00:20.000000Z", key
        )
        line = checkpoints.line(made).replace("'", "''")
        conn.exec_driver_sql("UPDATE logger_checkpoints SET line = '" + line.replace("%", "%%") + "' WHERE number = 4")

    log.database.write_now(work)
