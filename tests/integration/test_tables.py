"""What the services' classes say of their tables is what the migrations make, on both databases."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from midwatch.runtime.database import Database, migrate
from midwatch.runtime.erasure import erasure_prefix
from midwatch.runtime.outbox import outbox_tables
from midwatch_services.cost_watchdog.tables import Table as CostWatchdog
from midwatch_services.digest.tables import Table as Digest
from midwatch_services.drift.tables import Table as Drift
from midwatch_services.kill_switch.tables import Table as KillSwitch
from midwatch_services.logger import store
from midwatch_services.logger.decide import AlertRow, RunRow
from midwatch_services.logger.tables import Table as Logger
from midwatch_services.pager.tables import Table as Pager
from midwatch_services.reviewer_sampler.tables import Table as ReviewerSampler

SERVICES: dict[str, type[SQLModel]] = {
    "cost-watchdog": CostWatchdog,
    "drift": Drift,
    "digest": Digest,
    "kill-switch": KillSwitch,
    "logger": Logger,
    "pager": Pager,
    "reviewer-sampler": ReviewerSampler,
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tables.db"
    return str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")


# Of each table the columns with their type and whether they may be null, and the primary key.
Found = dict[str, tuple[dict[str, tuple[str, bool]], list[str]]]


def found(conn: sa.Connection) -> Found:
    inspector = sa.inspect(conn)
    return {
        table: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in inspector.get_columns(table)},
            inspector.get_pk_constraint(table)["constrained_columns"],
        )
        for table in inspector.get_table_names()
        if not table.startswith("alembic_version_")
    }


def declared_instead(conn: sa.Connection, declared: sa.MetaData) -> Found:
    """What is found where the classes make the tables: databases have names of their own for types."""
    made = sa.MetaData()
    made.reflect(conn)
    made.drop_all(conn)
    declared.create_all(conn)
    return found(conn)


@pytest.mark.parametrize("service", SERVICES)
def test_the_migrations_make_the_tables_that_the_classes_declare(url: str, service: str) -> None:
    declared = SERVICES[service].metadata
    migrate(url, service)
    database = Database(url)
    try:
        migrated = database.read_now(found)
        classes = database.write_now(lambda conn: declared_instead(conn, declared))
    finally:
        database.close()
    if service == "logger":  # the full-text index, which is each database's own
        migrated = {name: table for name, table in migrated.items() if not name.startswith("logger_words")}
        migrated["logger_readings"][0].pop("words", None)
        if url.startswith("sqlite"):  # months are partitions of PostgreSQL, where they must be in the key
            classes["logger_events"][1].remove("month")
    else:
        prefix = service.replace("-", "_")
        for own in (prefix, erasure_prefix(prefix)):
            for table in outbox_tables(sa.MetaData(), own):
                del migrated[table.name]
    assert set(classes) == set(declared.tables)
    assert migrated == classes


def test_the_tables_of_a_service_are_in_no_other_services_metadata() -> None:
    for service, base in SERVICES.items():
        assert base.metadata.tables
        assert all(name.startswith(service.replace("-", "_")) for name in base.metadata.tables)


def test_the_folded_rows_have_the_columns_of_their_tables_in_order() -> None:
    assert RunRow.__struct_fields__ == store.RUN_COLUMNS
    assert AlertRow.__struct_fields__ == store.ALERT_COLUMNS
