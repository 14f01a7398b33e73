"""Runs a command against a PostgreSQL of its own: `python tests/with_postgres.py COMMAND …`."""

import os
import subprocess
import sys

import psycopg

import postgres


def main() -> int:
    with postgres.cluster() as url:
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE midwatch")
        environment = {**os.environ, "MIDWATCH_DATABASE_URL": f"{url}/midwatch"}
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
