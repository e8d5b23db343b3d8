"""The `clusterkit` command: which commands there are, and the one error boundary.

A command's module is imported when the command is used, so `--help` stays fast.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from clusterkit import paths
from clusterkit.cli.questions import Declined
from clusterkit.errors import ClusterkitError

# A command imports a lot, makes little garbage and ends: collecting costs a tenth of its start.
gc.disable()

#: command -> (module, one line of help, shown without importing the module)
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("settings", "Write settings for a cluster, commented, into clusterkit.yaml."),
    "start": ("cluster", "Start a cluster, or heal one; ends with a verified one."),
    "stop": ("cluster", "End a cluster, and prove that nothing is left of it."),
    "pause": ("cloud", "Switch a cloud cluster's machines off; only their disks cost then."),
    "resize": ("cluster", "More workers, or fewer; busy ones are waited for."),
    "list": ("cluster", "List the clusters."),
    "adopt": ("cloud", "Take over a cluster that this computer does not know."),
    "orphans": ("cloud", "Find what no live cluster owns in the clouds, and remove it."),
    "image": ("cloud", "Your own images, from which a start is fast."),
    "prices": ("prices", "What an hour of a cloud's machines costs, the cheapest first."),
    "doctor": ("doctor", "Examine a cluster and this computer, and say what to do."),
    "ssh": ("cluster", "A shell on a cluster, or one command there."),
    "cp": ("copying", "Copy files to a cluster, or from it."),
    "sync": ("copying", "Bring what is new in a folder to a cluster."),
    "parrun": ("sweep", "Run a script over a grid of parameters as a job array."),
    "status": ("sweep", "How far an experiment is; without one, the latest."),
    "logs": ("sweep", "What a task printed."),
    "cancel": ("sweep", "Cancel what is left of an experiment."),
    "rerun": ("sweep", "Run the missing or failed tasks of an experiment again."),
    "harvest": ("harvest", "Bring results back: as a table, a file, a plot."),
    "history": ("harvest", "List the experiments."),
    "schema": ("settings", "Print the JSON Schema of clusterkit.yaml, for editors."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"clusterkit.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="clusterkit", prog_name="clusterkit")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """A SLURM cluster of your own, a parameter grid on it, one table of results.

    \b
      clusterkit start local
      clusterkit parrun train.py --grid grid.yaml
      clusterkit harvest
    """
    context.obj = paths.home(os.environ.get("CLUSTERKIT_HOME"), os.environ.get("CLUSTERKIT_CONFIG"))
    context.meta["debug"] = debug


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and end the process.

    Exit codes: 0 done, 1 an expected failure, 2 wrong usage, 130 interrupted.
    """
    code = run(sys.argv[1:] if argv is None else argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is open any more; taking the interpreter apart would cost 50 ms


def run(argv: Sequence[str]) -> int:
    """The same, returning the exit code."""
    debug = "--debug" in argv or bool(os.environ.get("CLUSTERKIT_DEBUG"))
    try:
        result: Any = cli.main(
            args=[word for word in argv if word != "--debug"] if debug else list(argv),
            prog_name="clusterkit",
            standalone_mode=False,
        )
    except Declined:
        click.echo("You said no: nothing more was done.", err=True)
        return 1
    except click.exceptions.Abort:
        click.echo("\nInterrupted.", err=True)
        return 130
    except KeyboardInterrupt:
        click.echo("\nInterrupted.", err=True)
        return 130
    except SystemExit as error:  # click's answer to a reader that left
        return error.code if isinstance(error.code, int) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader left (`| head`); Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ClusterkitError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else 0
