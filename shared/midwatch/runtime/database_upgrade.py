"""Tables brought to what this release knows; those of a newer one are left as they are."""

from typing import Any

from sqlalchemy.engine import Connection

from midwatch.errors import Misconfigured


class NewerDatabase(Misconfigured):
    """The tables of {service} in {where} are of a newer release than this one: start the newer release, or restore the
    backup that was made before it."""


def upgrade(conn: Connection, config: Any, *, service: str, where: str) -> None:
    """Raises NewerDatabase where a newer release was here."""
    from alembic import command
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    config.attributes["connection"] = conn
    try:
        command.upgrade(config, "heads")
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise NewerDatabase(service=service, where=where) from None
