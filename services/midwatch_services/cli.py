"""The `midwatch` command. Thin: each noun's commands live in `midwatch_services.commands`."""

import gc
import sys
from importlib import import_module

try:
    import typer
except ImportError:
    sys.exit("midwatch: the command line needs the server extra: pip install 'midwatch[server,embedded]'")

app = typer.Typer(
    name="midwatch",
    help="The operations layer for AI agents: run log, kill switch, budgets, human review.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# In the order of `midwatch --help`.
_NAMES = (
    "up console topology cards replay runs why digest redaction drift switch queue drill alerts ack pager",
    "watchdog prices reviews evals verify dead keep hold erase export import_log doctor demo",
)
for _name in " ".join(_NAMES).split():
    import_module(f"midwatch_services.commands.{_name}").register(app)


def main() -> None:
    """Runs the command line; an error of ours is one line and exit code 1."""
    # What is loaded stays: to look through it for garbage again and again is a fifth of a short command's time.
    gc.set_threshold(20_000)
    from midwatch.errors import MidwatchError

    try:
        app()
    except MidwatchError as error:
        sys.stderr.write(f"midwatch: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
