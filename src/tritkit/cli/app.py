"""All commands in one program, and what becomes of their errors.

Exit codes: 0 done; 1 a failure; 2 a mistake in what was asked for; 130 stopped by Ctrl-C. An error is one sentence on
standard error; `--debug` shows where it came from.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

import tritkit
from tritkit.cli import (
    bench,
    compare,
    demo,
    doctor,
    evaluation,
    exporting,
    folding,
    inspecting,
    methods,
    packing,
    recipes,
    report,
    running,
    ternarize,
    training,
)
from tritkit.errors import TritkitError, UserError

app = typer.Typer(
    name="tritkit",
    help="Ternary neural networks: train or calibrate them, export 2-bit ONNX, run them fast on ordinary CPUs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.command)
app.command("train")(training.command)
app.command("ternarize")(ternarize.command)
app.command("eval")(evaluation.command)
app.command("export")(exporting.command)
app.command("fold")(folding.command)
app.command("pack")(packing.pack_command)
app.command("unpack")(packing.unpack_command)
app.command("run")(running.command)
app.command("bench")(bench.command)
app.command("inspect")(inspecting.command)
app.command("report")(report.command)
app.command("compare")(compare.command)
app.command("methods")(methods.command)
app.add_typer(recipes.app, name="recipes")
app.command("doctor")(doctor.command)

_STOPPED = 130

# click's base of usage errors; typer brings its own copy of click in some versions, the real one in others
_UsageProblem: Any = typer.BadParameter.__mro__[2]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tritkit {tritkit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Ternary neural networks: train or calibrate them, export 2-bit ONNX, run them fast on ordinary CPUs."""


def run_app(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    arguments, debug = _without_debug(arguments)
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="tritkit", standalone_mode=False)
        sys.stdout.flush()
        if code == _STOPPED:  # how newer versions of typer hand on a Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped")
        return _STOPPED
    except BrokenPipeError:
        # whoever read our output has gone (`| head`); nothing more can be said to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if debug:
            raise
        return _explain(error)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """`--debug` counts wherever it stands before a bare `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest = [word for i, word in enumerate(arguments) if i >= end or word != "--debug"]
    return rest, len(rest) < len(arguments)


def _explain(error: Exception) -> int:
    """One sentence on standard error; returns the exit code."""
    if isinstance(error, _UsageProblem):
        message = " ".join(error.format_message().split())
        if type(error).__name__ != "NoArgsIsHelpError":
            place = error.ctx.command_path if getattr(error, "ctx", None) else "tritkit"
            message = f"{message.rstrip('.?')}; see {place} --help"
        _say(message)
        return 2
    if isinstance(error, TritkitError):
        _say(str(error))
        return 2 if isinstance(error, UserError) else 1
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("tritkit"):
        _say(f"this command needs {error.name}; pip install 'tritkit[train,onnx]'")
        return 1
    if isinstance(error, MemoryError):
        _say("there is not enough memory; use a smaller batch or file")
        return 1
    _say(f"{type(error).__name__}: {error}; run it again with --debug to see where")
    return 1


def _say(message: str) -> None:
    line = " ".join(str(message).split())
    sys.stderr.write(f"tritkit: {''.join(c if c.isprintable() else '?' for c in line)}\n")
