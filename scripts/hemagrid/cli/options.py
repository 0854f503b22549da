"""The options of `hemagrid`: those of snakemake, so that one command line serves both."""

import argparse
import contextlib
import io
import re
from pathlib import Path

from snakemake.cli import parse_args, parse_config
from snakemake.exceptions import CliException

from hemagrid.config.loading import ROOT, load_config, read_yaml, recorded_config
from hemagrid.errors import InputError

EPILOG = "Every other option of snakemake is understood as well."


def parser(command, text, takes=None, default="the one the study ran with"):
    """Return a parser of the options that a subcommand shares with snakemake.

    Args:
        command: Name of the subcommand.
        text: What it does, for its `--help`.
        takes: (name, explanation) of what it takes besides options, or None.
        default: The config if none is given, in words.
    """
    made = argparse.ArgumentParser(
        prog=f"hemagrid {command}",
        usage=f"hemagrid {command} {takes[0] + ' ' if takes else ''}[options]",
        description=text,
        epilog=EPILOG,
        allow_abbrev=False,
    )
    if takes:
        made.add_argument("targets", metavar=takes[0], nargs="*", help=takes[1])
    made.add_argument("--directory", metavar="DIR", help="folder of the study; default: here")
    help = f"config files, laid over config/config.yaml; default: {default}"
    made.add_argument("--configfile", metavar="FILE", nargs="+", help=help)
    made.add_argument("--config", metavar="KEY=VALUE", nargs="+", help="single config values")
    made.add_argument("--profile", metavar="DIR", help="where jobs run, as profiles/slurm says")
    return made


def read(words, parser, new=False):
    """Read the words after a subcommand as snakemake reads them.

    Args:
        words: List of str.
        parser: What `parser` returned for the subcommand.
        new: Whether the folder of the study may be absent.

    Returns:
        The namespace that snakemake makes of `words`. Its `targets` are the other words, its
        `config` is a mapping.

    Raises:
        InputError: snakemake would refuse them, or a file or folder is not there.
    """
    ours, _ = parser.parse_known_args(words)  # also answers --help
    said = io.StringIO()  # which profile was read, or what is wrong
    try:
        with contextlib.redirect_stderr(said):
            _, arguments = parse_args(words)
    except (SystemExit, CliException) as error:
        if getattr(error, "code", 1) == 0:
            raise
        reason = str(getattr(error, "msg", "")) or said.getvalue().strip().splitlines()[-1]
        if profile := re.search(r"profile directory given \((.*?)\)", reason):
            reason = (
                f"{profile[1]}: found no profile, expected a folder with profile.yaml or "
                f"config.yaml, such as {ROOT / 'profiles' / 'slurm'}"
            )
        reason = re.sub(r"^(.*?: )?[Ee]rror: ", "", reason.strip())
        raise InputError(f"{reason}; see {parser.prog} --help") from None
    folder = Path(arguments.directory or ".")
    for path in arguments.configfile or []:
        if not Path(path).exists():
            hint = "" if Path(path).suffix else "; targets go before --configfile"
            raise InputError(f"{path}: not found{hint}")
        read_yaml(path)
    if not (new or folder.exists()):
        raise InputError(f"{folder}: not found")
    if folder.is_file():
        raise InputError(f"{folder}: found a file, expected the folder of a study")
    for entry in arguments.config or []:
        name = entry.partition("=")[0]
        if "." in name:
            raise InputError(
                f"--config {entry}: found a name with a dot, expected a key of the config's "
                f"first level; write `{name.replace('.', ': {')}: ...{'}' * name.count('.')}` "
                "in a file and give it with --configfile"
            )
    try:
        arguments.config = parse_config(arguments.config)
    except ValueError as error:
        raise InputError(f"--config {' '.join(arguments.config)}: {error}") from None
    if arguments.targets and not hasattr(ours, "targets"):
        raise InputError(
            f"{' '.join(arguments.targets)}: found arguments that are not options; "
            f"see {parser.prog} --help"
        )
    return arguments


def study(arguments):
    """Find the study that a command is about, and its config.

    The config is that of the files given; else the one that the study ran with; else
    `config/config.yaml`. Values after `--config` are laid over it.

    Args:
        arguments: What `read` returned.

    Returns:
        (folder as a Path, validated config, name of the config for people)

    Raises:
        InputError: A config file cannot be read, or the config is invalid.
    """
    folder = Path(arguments.directory or ".")
    paths = arguments.configfile or []
    if not paths and (recorded := recorded_config(folder)):
        paths = [recorded]
    name = ", ".join(map(str, paths)) or "config/config.yaml"
    if arguments.config:
        name += " with --config"
    return folder, load_config(paths, arguments.config), name
