"""prices: what an hour of a machine costs."""

from __future__ import annotations

from dataclasses import asdict

import click

from clusterkit.cli.cluster import print_json, table
from clusterkit.cluster import prices as prices_of
from clusterkit.cluster.cloud import pricelist
from clusterkit.cluster.cloud.pricelist import PriceList
from clusterkit.paths import Home


@click.command("prices")
@click.argument("name")
@click.argument("types", nargs=-1, metavar="[TYPES]...")
@click.option("--spot", is_flag=True, help="Spot prices too, zone by zone.")
@click.option("--region", metavar="REGION", help="Another region than the settings'.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def prices_command(
    home: Home, name: str, types: tuple[str, ...], spot: bool, region: str | None, as_json: bool
) -> None:
    """What an hour of machines costs, asked of the cloud now, the cheapest first.

    NAME is a cluster of the settings, or a provider (ec2, gce). Without TYPES: the cluster's.

    \b
      clusterkit prices aws g5.xlarge g4dn.xlarge --spot
      clusterkit prices ec2 --region eu-north-1 g6.xlarge
    """
    found = pricelist.ask(home, name, types, spot=spot, region=region)
    if as_json:
        print_json(asdict(found))
        return
    for line in table([_HEADER, *map(list, _rows(found))]):
        click.echo(line)
    click.echo()
    # A reason is as long as a row; it is often that of many.
    for why in dict.fromkeys(one.why for one in found.prices if one.amount is None and one.why):
        which = [one for one in found.prices if one.amount is None and one.why == why]
        names = dict.fromkeys(f"{one.subject} {one.market}" for one in which)
        click.echo(f"Unknown: {', '.join(names)}: {why}")
    for source in found.sources:
        click.echo(f"Prices in {source}.")
    if found.note:
        click.echo(found.note, err=True)


_HEADER = ["TYPE", "MARKET", "ZONE", "CPUS", "MEMORY", "GPUS", "AN HOUR", "SINCE (UTC)"]


def _rows(found: PriceList) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in found.prices:
        kind = found.types.get(one.subject)
        gpus = f"{kind.gpus} {kind.gpu}".strip() if kind is not None and kind.gpus else "-"
        amount = "unknown"
        if one.amount is not None:
            amount = f"{prices_of.amount(one.amount)} {one.currency}"
        rows.append(
            (
                one.subject,
                one.market,
                one.zone or f"all of {found.region}",
                str(kind.cpus) if kind is not None and kind.cpus else "?",
                f"{kind.memory / 1024:g} GiB" if kind is not None and kind.memory else "?",
                gpus if kind is not None else "?",
                amount,
                f"{one.as_of:%Y-%m-%d %H:%M}" if one.as_of is not None else "",
            )
        )
    return rows
