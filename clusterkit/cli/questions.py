"""Asking the user, and telling him something beside a command's result."""

from __future__ import annotations

import sys

import click

from clusterkit.errors import UsageError


class Declined(click.Abort):
    """The user said no."""


def tell(line: str) -> None:
    """Say it on standard error."""
    click.echo(line, err=True)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless `yes`; without a terminal there is nobody to ask.

    Raises UsageError then, and Declined when the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here: say --yes to agree.")
    if not click.confirm(question):
        raise Declined
