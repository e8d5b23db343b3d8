"""Asking the user."""

from __future__ import annotations

import sys

import click

from clusterkit.errors import UsageError


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `yes`; without a terminal there is nobody to ask.

    Raises UsageError then, and click.Abort when the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: say --yes to agree.")
    click.confirm(question, abort=True)
