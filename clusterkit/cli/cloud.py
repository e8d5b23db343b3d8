"""adopt, orphans, pause, image: what clusters of the clouds have besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from clusterkit import cluster
from clusterkit.cli import ending as guard
from clusterkit.cli.cluster import (
    agreement,
    print_json,
    said_when_interrupted,
    show_plan,
    show_started,
    table,
)
from clusterkit.cli.questions import confirm, tell
from clusterkit.cli.watch import Display
from clusterkit.cluster.cloud import elsewhere, found
from clusterkit.cluster.cloud.api import Cloud, Image
from clusterkit.cluster.cloud.elsewhere import Region
from clusterkit.cluster.cloud.found import Found, Orphan
from clusterkit.errors import ClusterError, UsageError
from clusterkit.paths import Home


@click.command("adopt")
@click.argument("name")
@click.option("--id", "id_", metavar="ID", default="", help="Which of several; or take it back.")
@click.option("--provider", metavar="CLOUD", default="", help="Its cloud, if no settings name it.")
@click.option("--region", metavar="REGION", help="Its region, if no settings name it.")
@click.option("--no-key", is_flag=True, help="Only claim it, so that it can be stopped from here.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say whose it is and what would be done.")
@click.pass_obj
def adopt_command(
    home: Home,
    name: str,
    id_: str,
    provider: str,
    region: str | None,
    no_key: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Take over the cluster NAME, which its cloud has and this computer does not know.

    It is found by its labels. Its old keys are not here, so a new one is brought in through the
    cloud's API: machines are switched off, told the new key, and switched on; spot machines, which
    cannot be switched off, are ended, and made anew by the start that follows.
    """
    from clusterkit.cluster import lifecycle
    from clusterkit.cluster.cloud import adopting

    claim = adopting.look(home, name, id_=id_, provider=provider, region=region, say=tell)
    there = claim.found
    click.echo(f"{name} in {there.region}, id {there.id}: {there.whose}; {there.machines}")
    what = _disturbed(there)
    if dry_run:
        click.echo(f"It would be taken over. {'' if no_key else what}".rstrip())
        click.echo("Nothing was changed (--dry-run).")
        return
    if not claim.begun:
        confirm("Take it over? Who has its old key can get in until a new one was brought.", yes)
    adopting.take(home.prepared(), name, claim)
    if no_key:
        click.echo(
            f"Cluster {name!r} is known here now, but cannot be logged in to. `clusterkit stop "
            f"{name}` ends it, `clusterkit adopt {name}` brings a key."
        )
        return
    click.echo(what)
    confirm("Go on?", yes)
    agreed = agreement(yes, as_json=False)
    with said_when_interrupted(home, name, "adopt"), Display() as display:
        adopting.bring_key(home, name, display)
        started = lifecycle.start(home, name, agree=agreed(display), watch=display)
    show_started(name, started)


def _disturbed(there: Found) -> str:
    """What bringing a key means for the machines."""
    spot = sum(one.market == "spot" for one in there.instances)
    rest = len(there.instances) - spot
    words = (
        f"{_count(rest, 'machine')} will be switched off, told the new key, and switched on: jobs "
        "there run again from the queue."
    )
    if spot:
        words += (
            f" {_count(spot, 'spot machine')} will be ended, with what is on no other disk, and "
            "made anew."
        )
    heads = [one for one in there.instances if one.labels.get(found.ROLE) == "head"]
    if any(one.market == "spot" for one in heads):
        words += " The head is one of them: the queue, the accounting and all of /home are lost."
    return words


@click.command("pause")
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be switched off.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def pause_command(home: Home, name: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Switch the machines of the cluster NAME off; only their disks cost then.

    `start` resumes it, with new addresses. Spot machines cannot be switched off: they are ended,
    and `start` makes new ones. What is in /home lies on the head, and stays; a head that is a spot
    machine is therefore not paused.
    """
    from clusterkit.cluster import ending, looking

    cluster.require_known(name, home)
    if dry_run:
        status = looking.status(home, name, say=tell)
        click.echo(
            f"Cluster {name!r} is {status.state}: {status.running} running job elements would go "
            "back into the queue."
        )
        click.echo("Nothing was paused (--dry-run).")
        return
    guard.settle_before_pause(home, name, yes)
    with said_when_interrupted(home, name, "pause"), Display(silent=as_json) as display:
        rested = ending.pause(home, name, watch=display)
    if as_json:
        print_json(asdict(rested))
        return
    ended = f" {', '.join(rested.ended)} ended." if rested.ended else ""
    click.echo(
        f"Cluster {name!r} is paused: {', '.join(rested.off) or 'nothing'} switched off.{ended} "
        f"From now on {rested.cost}. `clusterkit start {name}` resumes it; {rested.seconds:.1f} s."
    )


@click.command("orphans")
@click.option("--all", "everywhere", is_flag=True, help="Look in all regions of all clouds.")
@click.option("--provider", metavar="CLOUD", help="Look in this cloud alone; with --region.")
@click.option("--region", metavar="REGION", help="Look in this region of it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only list them.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def orphans_command(
    home: Home,
    everywhere: bool,
    provider: str | None,
    region: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Find what no live cluster owns in the clouds, and remove it.

    That is what has a cluster's labels, but whose cluster has no head and is not known on this
    computer; and machines that were to become an image, after two hours. What is younger than an
    hour is left alone, for a start may be under way. Saved images are no orphans.
    """
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        tell(line)

    where = _where(home, everywhere, provider, region, warn)
    known = elsewhere.ids(home)

    def ask(cloud: Cloud) -> tuple[Cloud, list[Orphan]]:
        cloud.tell(tell)
        return cloud, found.orphans(cloud, known)

    asked = elsewhere.ask(where, ask, warn)
    listed = [(cloud, one) for cloud, several in asked for one in several]
    if as_json:
        print_json([{"provider": cloud.name, "region": cloud.region, **asdict(one)}
                     for cloud, one in listed])  # fmt: skip
    else:
        _show_orphans(asked)
    old = sum(not one.young for _, one in listed)
    if dry_run or not old or (as_json and not yes):
        if dry_run and not as_json:
            click.echo("Nothing was removed (--dry-run).")
        return 1 if warnings else 0
    confirm(f"Remove {_count(old, 'thing')} that no live cluster owns?", yes)
    for cloud, several in asked:
        if any(not one.young for one in several):
            gone = found.remove(cloud, several, known, tell)
            if not as_json:
                kinds = ", ".join(cloud.kinds)
                click.echo(
                    f"{cloud.name} {cloud.region}: {_count(len(gone), 'thing')} removed. Looked "
                    f"for {kinds}: none of them left."
                )
    return 1 if warnings else 0


def _show_orphans(asked: Sequence[tuple[Cloud, Sequence[Orphan]]]) -> None:
    rows = [("CLOUD", "CLUSTER", "OF", "SINCE", "WHAT", "")]
    rows += [
        (
            f"{cloud.name} {cloud.region}",
            f"{one.cluster} {one.id}",
            one.owner,
            found.when(one.since) if one.since is not None else "unknown",
            str(one.resource),
            f"young: {one.why}; it stays" if one.young else one.why,
        )
        for cloud, several in asked
        for one in several
    ]
    if len(rows) > 1:
        for line in table(rows):
            click.echo(line)
    for cloud, several in asked:
        if not several:
            kinds = ", ".join(cloud.kinds)
            click.echo(f"{cloud.name} {cloud.region}: no orphans. Looked for {kinds}.")


def _where(
    home: Home, everywhere: bool, provider: str | None, region: str | None, warn: elsewhere.Warn
) -> list[Region]:
    """The regions that are meant. Raises UsageError when there are none."""
    if everywhere and (provider or region):
        raise UsageError("--all looks everywhere: it excludes --provider and --region")
    if everywhere:
        return elsewhere.everywhere(home, warn)
    if region and not provider:
        raise UsageError("--region needs --provider")
    if provider:
        return [elsewhere.named(provider, region)]
    where = elsewhere.regions(home)
    if not where:
        raise UsageError(
            "no cluster of the settings is in a cloud. Say where to look: --provider ec2 "
            "--region REGION, or --all."
        )
    return where


@click.group("image")
def image_command() -> None:
    """Your own images: with all packages in them, so that a start is fast."""


@image_command.command("save")
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be made.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def image_save_command(home: Home, name: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Make an image for the machines of the cluster NAME; later starts use it while it fits.

    A machine of its own is started for it, set up, cleaned of every key and trace, and ended. The
    cluster need not run.
    """
    from clusterkit.cluster.cloud import imaging

    cluster.require_known(name, home)
    if dry_run:
        show_plan(imaging.preview(home, name), as_json)
        return
    agreed = agreement(yes, as_json)
    with Display(silent=as_json) as display:
        image = imaging.save(home.prepared(), name, agreed(display), display)
    if as_json:
        print_json(asdict(image))
    else:
        click.echo(f"Image {image.id} ({image.name}) is saved; the next start uses it.")


_ALL = click.option("--all", "everywhere", is_flag=True, help="Ask all regions of all clouds.")
_PROVIDER = click.option("--provider", metavar="CLOUD", help="Ask this cloud alone.")
_REGION = click.option("--region", metavar="REGION", help="Ask this region of it.")


@image_command.command("list")
@click.argument("name", required=False)
@_ALL
@_PROVIDER
@_REGION
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_obj
def image_list_command(
    home: Home,
    name: str | None,
    everywhere: bool,
    provider: str | None,
    region: str | None,
    as_json: bool,
) -> int:
    """List the saved images of all clusters, or of NAME, where clusters are; and what they cost."""
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        tell(line)

    if name is not None:
        cluster.require_known(name, home)
    where = _where(home, everywhere, provider, region, warn)
    asked = elsewhere.ask(where, lambda cloud: (cloud, cloud.images(), cloud.image_price()), warn)
    fits = _fitting(home)
    rows, tree = [("IMAGE", "NAME", "CLUSTER", "MADE", "STATE", "SIZE AND COST", "FITS")], []
    seen = set()
    for cloud, images, price in asked:
        for image in images:
            label = image.labels.get(found.NAME, "")
            if image.id in seen or name not in (None, label):
                continue
            seen.add(image.id)
            users = sorted(fits.get((cloud.name, image.digest), []))
            made = found.when(image.made) if image.made is not None else ""
            state = image.state + (f": {image.words}" if image.words else "")
            cost = found.monthly(image, price)
            rows.append((image.id, image.name, label, made, state, cost,
                         ", ".join(users) or "nothing: it can be removed"))  # fmt: skip
            month = None if price.amount is None else price.amount * image.disk * found.HOURS
            tree.append({**asdict(image), "provider": cloud.name, "region": cloud.region,
                         "month": month, "currency": price.currency, "fits": users})  # fmt: skip
    if as_json:
        print_json(tree)
    elif not tree:
        if asked:  # where nothing could be asked, nobody knows
            click.echo("No saved images.")
    else:
        for line in table(rows):
            click.echo(line)
    return 1 if warnings else 0


@image_command.command("remove")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@_ALL
@_PROVIDER
@_REGION
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.pass_obj
def image_remove_command(
    home: Home,
    ids: tuple[str, ...],
    everywhere: bool,
    provider: str | None,
    region: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Remove saved images, by id or name, with the disk snapshots behind them."""
    from clusterkit.cluster.cloud import imaging

    where = _where(home, everywhere, provider, region, tell)
    asked = elsewhere.ask(where, lambda cloud: (cloud, cloud.images()), tell)
    there: dict[str, tuple[Cloud, Image]] = {}
    for cloud, several in asked:
        for image in several:
            there.setdefault(image.id, (cloud, image))
    images = [image for _, image in there.values()]
    ids = tuple(dict.fromkeys(_image_id(one, images) for one in ids))
    unknown = [one for one in ids if one not in there]
    if unknown:
        raise ClusterError(
            f"no saved image {', '.join(unknown)}; there is {', '.join(there) or 'none'}. Nothing "
            "was removed."
        )
    for id_ in ids:
        cloud, image = there[id_]
        click.echo(f"{image.id} {image.name}, {image.disk} GiB, in {cloud.region}")
    if dry_run:
        click.echo("Nothing was removed (--dry-run).")
        return
    confirm(f"Remove {_count(len(ids), 'image')}?", yes)
    for id_ in ids:
        imaging.remove(*there[id_])
        click.echo(f"{id_} is removed.")


def _image_id(said: str, images: Sequence[Image]) -> str:
    """The id of an image that is named by its name, where one alone has it."""
    named = [one.id for one in images if one.name == said]
    return named[0] if len(named) == 1 else said


def _fitting(home: Home) -> dict[tuple[str, str], list[str]]:
    """(cloud, digest) -> the clusters of the settings that would start from such an image."""
    from clusterkit.cluster import config
    from clusterkit.cluster.cloud import imaging
    from clusterkit.cluster.spec import CloudSpec

    made: dict[tuple[str, str], list[str]] = {}
    for name in config.names(home):
        spec = config.cluster_spec(home, name)
        if isinstance(spec, CloudSpec):
            for arch in ("x86_64", "arm64"):
                digest = imaging.digest(spec, spec.image, arch)
                made.setdefault((spec.provider, digest), []).append(name)
    return made


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
