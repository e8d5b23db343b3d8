"""doctor: what may be wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import click

from clusterkit.cli.cluster import print_json
from clusterkit.cluster.cloud import doctor
from clusterkit.cluster.cloud.api import Finding
from clusterkit.paths import Home


@click.command("doctor")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor_command(home: Home, name: str, as_json: bool) -> int:
    """Examine the cluster NAME, its cloud and this computer, and say what to do. Changes nothing.

    Each finding is good, bad, or unknown. The exit code is 1 when anything is bad.
    """
    found: list[Finding] = []
    for finding in doctor.examine(home, name):
        found.append(finding)
        if not as_json:
            _show(finding)
    counts = Counter(finding.verdict for finding in found)
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        click.echo(
            f"{counts['good']} good, {counts['bad']} bad, {counts['unknown']} unknown; nothing was "
            "changed."
        )
    return 1 if counts["bad"] else 0


def _show(finding: Finding) -> None:
    """At once: some checks take seconds."""
    first, *more = finding.words.splitlines() or [""]
    click.echo(f"{finding.verdict:<8} {finding.subject:<24} {first}")
    for line in (*more, *finding.advice.splitlines()):
        click.echo(f"{'':<34}{line}")
