"""What a job says: everything into its log, the few lines a person follows also on screen."""

import contextlib
import errno
import os
import sys
import traceback

from hemagrid.errors import InputError, Stopped

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


_terminal = sys.stderr


def progress(message):
    """Print one line to the log and, where a job has redirected its output, to the terminal."""
    print(message, flush=True)
    if _terminal is not sys.stderr:
        print(message, file=_terminal, flush=True)


@contextlib.contextmanager
def job(log_path):
    """Send a job's output, its libraries' included, to `log_path`.

    An `InputError` ends the job with its text alone, as do `Stopped` and a full disk; any
    other error leaves its traceback in the log. Either way one paragraph reaches the terminal
    and the exit status is 1, so that a scheduler starts the job again.
    """
    global _terminal
    _terminal = os.fdopen(os.dup(2), "w", buffering=1)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        yield
    except InputError as error:
        progress(f"Error: {error}")
        sys.exit(1)
    except Stopped as reason:
        progress(f"Stopped: {reason}")
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            progress(f"Error: {error}; free some space or raise the quota, and run again")
            sys.exit(1)
        traceback.print_exc()
        print(
            f"Error: {type(error).__name__}: {error}\nThe traceback is in {log_path}",
            file=_terminal,
            flush=True,
        )
        sys.exit(1)
