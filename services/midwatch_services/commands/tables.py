"""What commands read from kill-switch's tables."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .output import fail

if TYPE_CHECKING:
    from midwatch.runtime.database import Database


_QUIETLY = 1.0  # seconds


def runs_without_presence() -> dict[str, list[str]]:
    """Runs in flight of the agents that send no presence, as kill-switch saw them last. None where its database cannot
    be read at once: the commands that need NATS alone do not wait for it."""
    found: Future[dict[str, list[str]]] = Future()

    def read() -> None:
        try:
            found.set_result(_strays())
        except Exception:  # whatever it is, it is no business of who asks
            found.set_result({})

    threading.Thread(target=read, daemon=True).start()
    try:
        return found.result(_QUIETLY)
    except TimeoutError:
        return {}


def _strays() -> dict[str, list[str]]:
    from datetime import UTC, datetime

    from midwatch_services.kill_switch import store
    from midwatch_services.kill_switch.policy import POLICY

    database = _database()
    try:
        since, runs = datetime.now(UTC) - POLICY.idle_after, dict[str, list[str]]()
        for agent, run_id, last_at in database.read_now(store.strays):
            if last_at >= since:
                runs.setdefault(agent, []).append(run_id)
        return {agent: sorted(some) for agent, some in sorted(runs.items())}
    finally:
        database.close()


def _database() -> "Database":
    from midwatch.contracts import subjects
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings

    return Database(Settings().database_for(subjects.KILL_SWITCH), name=subjects.KILL_SWITCH, must_exist=True)


@contextmanager
def kill_switch_tables(what: str) -> "Iterator[Database]":
    """kill-switch's database, in which `what` is looked for; ends the command with one line where there is none."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.errors import MidwatchError

    try:
        database = _database()
    except MidwatchError as error:
        fail(str(error))
    try:
        yield database
    except (OperationalError, ProgrammingError):
        fail(f"there is no {what} in {database.where} yet: start kill-switch with `midwatch run kill-switch`")
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()
