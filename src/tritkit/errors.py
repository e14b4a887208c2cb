"""The errors tritkit raises on purpose. The command line turns them into exit codes.

TritkitError            a failure: exit code 1
└─ UserError            a mistake in what was asked for: exit code 2; also a ValueError
   └─ ModelFileError    a model file that is damaged, hostile or not ours
   └─ UnsupportedError  a network or file with an operation we do not run; names it and its place
"""

from __future__ import annotations


class TritkitError(Exception):
    """Something went wrong that the caller could not have known."""


class UserError(TritkitError, ValueError):
    """What was asked for cannot be done; the message says what was given, what is allowed, what to do."""


class ModelFileError(UserError):
    """The model file is damaged, hostile or not one that tritkit reads."""


class UnsupportedError(UserError):
    """The network has an operation that cannot be expressed; the message names it and its place."""
