"""init, schema: make a settings file, and describe it to editors."""

from __future__ import annotations

from pathlib import Path

import click

from clusterkit import paths
from clusterkit.cluster import config
from clusterkit.errors import UsageError
from clusterkit.paths import Home

_PROVIDERS = ("nspawn", "ssh", "ec2", "gce", "attach", "local")


@click.command("init")
@click.argument("name")
@click.option(
    "--provider",
    type=click.Choice(_PROVIDERS),
    help="Where the cluster's machines come from [default: what NAME says, if it does].",
)
@click.option("--dry-run", is_flag=True, help="Print the file as it would be, and write nothing.")
@click.pass_obj
def init_command(home: Home, name: str, provider: str | None, dry_run: bool) -> None:
    """Write settings for the cluster NAME into clusterkit.yaml, commented.

    A file that is there (here, above, or named by CLUSTERKIT_CONFIG) gets one cluster more, and
    everything else in it stays as it is.

    \b
      clusterkit init gce
      clusterkit init lab --provider nspawn
    """
    from clusterkit.cluster import edit, values

    try:
        values.cluster_name(name)
    except ValueError as error:
        raise UsageError(f"{name!r}: {error}") from error
    provider = provider or values.provider_meant(name)
    if not provider:
        raise UsageError(
            f"where do the machines of {name!r} come from? Say it with --provider "
            f"{', '.join(_PROVIDERS[:-1])} or {_PROVIDERS[-1]}."
        )
    file = config.place(home)
    example = _example(name, provider)
    there = file.exists()
    text = _extended(file, name, example) if there else example
    if dry_run:
        click.echo(text, nl=False)
        return
    edit.save(file, text)
    what = f"the cluster {name!r} was added" if there else f"new, with the cluster {name!r}"
    click.echo(f"{file}: {what}.\nEdit it, then `clusterkit start {name}`.")


def _extended(file: Path, name: str, example: str) -> str:
    """The text of `file` with the example's cluster at its end."""
    from clusterkit.cluster import edit

    text = config.text(file)
    bare = all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines())
    if not bare and name in config.load(file):
        raise UsageError(
            f"{file} has a cluster {name!r} already, and it stays as it is. Change it with an "
            "editor, or choose another name."
        )
    return edit.add(text, example.partition("\nclusters:\n")[2])


def _example(name: str, provider: str) -> str:
    template = paths.templates() / "init" / f"{provider}.yaml"
    return template.read_text(encoding="utf-8").replace("  NAME:", f"  {name}:", 1)


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of clusterkit.yaml, so that editors can check and complete it.

    \b
      clusterkit schema > clusterkit.schema.json
    """
    import json

    from clusterkit.cluster import json_schema

    click.echo(json.dumps(json_schema.schema(), indent=2))
