"""`baleen policy`: check, test, compare, try out and roll back policies, without a cluster."""

from pathlib import Path
from typing import Annotated, Final

import typer

from baleen_cli.lazy import lazy_group

COMMANDS: Final = {
    "validate": "baleen_cli.commands.policy_files:validate",
    "test": "baleen_cli.commands.policy_files:run_tests",
    "diff": "baleen_cli.commands.policy_files:show_diff",
    "history": "baleen_cli.commands.policy_records:history",
    "rollback": "baleen_cli.commands.policy_records:rollback",
    "simulate": "baleen_cli.commands.policy_files:simulate",
    "backtest": "baleen_cli.commands.policy_backtest:run_backtest",
    "suggest": "baleen_cli.commands.policy_backtest:show_suggestions",
}

app = typer.Typer(
    cls=lazy_group(COMMANDS), help="Check, test, compare, try out and roll back policies.", no_args_is_help=True
)
StateOption = Annotated[Path, typer.Option("--state", envvar="BALEEN_STATE", help="Folder of the decision log")]
