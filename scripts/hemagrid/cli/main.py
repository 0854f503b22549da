"""The command `hemagrid`: what people do with a study besides running it with snakemake."""

import difflib
import errno
import importlib
import os
import shlex
import sys
from pathlib import Path

from hemagrid import __version__
from hemagrid.errors import InputError

COMMANDS = {
    "plan": "what a study will cost: jobs, hours and storage; runs nothing",
    "status": "how far every job of a study is, while it runs or after",
    "report": "write the report from what is finished so far; trains nothing",
    "predict": "classify new pictures with a trained run",
    "export": "write a run as ONNX, TFLite or SavedModel, or all runs for MLflow or as CSV",
    "submit": "package a run for Codabench and score the package here",
    "clean": "remove the caches of a finished study",
    "demo": "run the complete small study: no network, no GPU, minutes",
}

GOES_ON = {
    "submit": "what is finished stays, and this goes on from there",
    "demo": "what is finished stays, and this goes on from there",
    "clean": "this removes the caches that are left",
}
"""What the same command does after Ctrl-C; the others only read, and start over."""

HELP = """usage: hemagrid COMMAND [options]

{}

`hemagrid COMMAND --help` explains a command. A study itself is run with snakemake.""".format(
    "\n".join(f"  {name:8} {does}" for name, does in COMMANDS.items())
)


def main(words=None):
    """Run one subcommand and return its exit status.

    Args:
        words: The words after `hemagrid`. None stands for those of the command line.
    """
    command, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if command in ("-h", "--help"):
        print(HELP)
        return 0
    if command == "--version":
        print(f"hemagrid {__version__}")
        return 0
    try:
        if command not in COMMANDS:
            close = difflib.get_close_matches(command, COMMANDS, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise InputError(
                f"{command}: not a command of hemagrid, expected one of "
                f"{', '.join(COMMANDS)}{meant}"
            )
        # Only now: `hemagrid --help` should not wait for pandas or Snakemake.
        status = importlib.import_module(f"hemagrid.cli.{command}").main(rest)
        sys.stdout.flush()
        return status or 0
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as in `hemagrid status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):  # no space, ...
            print(f"Error: {error}", file=sys.stderr)
            return 1
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        found = Path(error.filename)
        if cache.is_relative_to(found) or found.is_relative_to(cache):
            print(
                f"Error: {found}: found no permission to write it, expected a folder for "
                "Snakemake's cache; set XDG_CACHE_HOME to a folder of yours, for every command",
                file=sys.stderr,
            )
            return 1
        print(
            f"Error: {error.filename}: found no permission to write or read it, expected a "
            "study of yours; copy it (cp -a), or ask its owner",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        does = GOES_ON.get(command, "nothing was changed, and this starts over")
        print(
            f"Interrupted: {does}: {shlex.join(['hemagrid', command, *rest])}", file=sys.stderr
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
