"""The sequencer's step on both databases: every event sealed once, whoever came late and whoever was first."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from logged import NOON, received
from midwatch.runtime.database import Database, migrate
from midwatch_services.logger import store
from midwatch_services.logger.evidence import chain, chain_store, sequencer
from midwatch_services.logger.places import place


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    migrate(url, "logger")
    made = Database(url, name="logger")
    yield made
    made.close()


def save(database: Database, *places: int, agent: str = "desk") -> None:
    """Events at these places of the first stream, in one batch; the id says the place."""
    at = {f"e-{number}": place(1, number) for number in places}
    batch = [received("said", id=id, agent=agent, by="agent", text="x") for id in at]
    database.write_now(lambda conn: store.save(conn, batch, place=lambda one: at[one.event.id]))


def step(database: Database, upto: int) -> bool:
    found = database.read_now(lambda conn: sequencer.read_next(conn, place(1, upto)))
    return database.write_now(lambda conn: sequencer.seal(conn, found, NOON))


def sealed(database: Database, agent: str = "desk") -> list[list[int]]:
    """Sequences by block."""

    def work(conn: Connection) -> list[list[int]]:
        blocks = list(chain_store.blocks(conn, agent))
        assert list(chain.check(blocks)) == []
        return [[at - place(1, 0) for at, _ in chain.entries(block.leaves)] for block in blocks]

    return database.read_now(work)


def test_what_is_up_to_the_watermark_is_sealed_in_order_of_place(database: Database) -> None:
    save(database, 3, 1)
    save(database, 2, 5)
    assert step(database, 3)
    assert sealed(database) == [[1, 2, 3]]
    assert step(database, 9)
    assert sealed(database) == [[1, 2, 3], [5]]


def test_agents_have_chains_of_their_own(database: Database) -> None:
    save(database, 1, 4)
    save(database, 2, 3, agent="other")
    assert step(database, 4)
    assert (sealed(database), sealed(database, "other")) == ([[1, 4]], [[2, 3]])


def test_an_event_at_a_place_that_was_passed_goes_to_the_end(database: Database) -> None:
    save(database, 1, 4)
    assert step(database, 4)
    save(database, 3, 2, 4)  # 4 is there already
    assert database.read_now(sequencer.unsealed) == 2
    assert step(database, 4)
    assert sealed(database) == [[1, 4], [2, 3]]
    assert database.read_now(sequencer.unsealed) == 0


def test_of_two_that_read_the_same_only_one_seals(database: Database) -> None:
    save(database, 1, 2)
    found = [database.read_now(lambda conn: sequencer.read_next(conn, place(1, 2))) for _ in range(2)]
    assert [database.write_now(lambda conn, one=one: sequencer.seal(conn, one, NOON)) for one in found] == [True, False]
    save(database, 1)
    assert sealed(database) == [[1, 2]]


def test_of_two_that_read_the_same_late_event_only_one_seals_it(database: Database) -> None:
    save(database, 2)
    assert step(database, 2)
    save(database, 1)
    found = [database.read_now(lambda conn: sequencer.read_next(conn, place(1, 2))) for _ in range(2)]
    assert [database.write_now(lambda conn, one=one: sequencer.seal(conn, one, NOON)) for one in found] == [True, False]
    assert sealed(database) == [[2], [1]]


def test_what_is_stored_while_it_seals_is_not_passed_over(database: Database) -> None:
    save(database, 1)
    found = database.read_now(lambda conn: sequencer.read_next(conn, place(1, 3)))
    save(database, 2)  # of a stream that is gone: no watermark waits for it
    assert not database.write_now(lambda conn: sequencer.seal(conn, found, NOON))
    assert step(database, 3)
    assert sealed(database) == [[1, 2]]


def test_more_than_fits_one_transaction_goes_step_by_step(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "AT_ONCE", 3)
    monkeypatch.setattr(chain, "LARGEST", 2)
    save(database, *range(1, 6))
    assert step(database, 5)
    assert sealed(database) == [[1, 2], [3]]
    assert step(database, 5)
    assert sealed(database) == [[1, 2], [3], [4, 5]]


def test_a_note_stands_between_blocks_of_events(database: Database) -> None:
    save(database, 1)
    assert step(database, 1)
    note = chain.removal_note("older than 400 days", "2026-11-22T12:00:00.000000Z", [(place(1, 1), place(1, 1), 1)])
    block = database.write_now(lambda conn: chain_store.append_note(conn, "desk", "removal", note))
    save(database, 2)
    assert step(database, 2)
    assert (block.number, sealed(database)) == (2, [[1], [], [2]])
