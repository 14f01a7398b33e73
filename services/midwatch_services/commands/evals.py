"""`midwatch eval`: the eval set, its replay, and the gate."""

import typer

from . import eval_run


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    evals = typer.Typer(no_args_is_help=True, help="The eval set: make cases from runs, replay them, gate a change.")
    app.add_typer(evals, name="eval")
    eval_run.register(evals)
