"""A side of a benchmark in a process of its own."""

import subprocess
import sys


def last_line(program, *arguments):
    """Run a program of Python; return the last line it printed. Exits if the program fails."""
    command = [sys.executable, *map(str, (program, *arguments))]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(command)}:\n{ended.stderr[-4000:]}")
    return ended.stdout.splitlines()[-1] if ended.stdout else ""
