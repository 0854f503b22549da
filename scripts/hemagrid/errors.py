"""The error that is meant for the person who reads it."""


class InputError(Exception):
    """Bad input or configuration: what, where, found, expected, what to do.

    A job that meets one prints its text alone, without a traceback, and exits 1.
    """


class Stopped(Exception):
    """A job was asked to stop and has saved what it had, for the same command to go on."""
