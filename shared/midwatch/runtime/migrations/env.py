"""Alembic's environment, one for all services: `midwatch.runtime.database.migrate` hands it the open transaction."""

from alembic import context

config = context.config

context.configure(
    connection=config.attributes["connection"],
    version_table=config.attributes["version_table"],
    transactional_ddl=True,
)
context.run_migrations()
