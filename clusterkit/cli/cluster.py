"""start, stop, resize, list, ssh; and how plans and tables are shown."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from clusterkit import cluster
from clusterkit.cli import ending as guard
from clusterkit.cli.questions import confirm, tell
from clusterkit.cli.watch import Display
from clusterkit.cluster import access, lifecycle, looking, stored
from clusterkit.cluster.lifecycle import Started
from clusterkit.cluster.providers import Machine, Plan
from clusterkit.cluster.state import Node
from clusterkit.errors import UsageError
from clusterkit.paths import Home
from clusterkit.transport import Local


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, default=str))


@click.command("start")
@click.argument("name")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--again", is_flag=True, help="Set it up again although all seems well.")
@click.option("--replace", is_flag=True, help="Make dead machines anew; their disks are lost.")
@click.option("--allow", multiple=True, metavar="CIDR", help="Let this network in by ssh too.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def start_command(
    home: Home,
    name: str,
    yes: bool,
    again: bool,
    replace: bool,
    allow: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Start the cluster NAME, or heal it; ends when jobs have run on it.

    `local` is a SLURM of your own on this machine: it needs no settings, no account and no root
    (but to install SLURM's packages where they are missing). Others are described in
    clusterkit.yaml (`clusterkit init`). A start that failed or was killed goes on where it was.
    """
    if dry_run:
        show_plan(lifecycle.plan(home, name, allow=allow, say=tell), as_json)
        return
    # The question comes before the display, so that nothing is drawn over it.
    agreed = agreement(yes, as_json)
    with said_when_interrupted(home, name, "start"), Display(silent=as_json) as display:
        started = lifecycle.start(
            home.prepared(),
            name,
            agree=agreed(display),
            watch=display,
            again=again,
            replace_dead=replace,
            allow=allow,
        )
    if as_json:
        print_json(asdict(started))
    else:
        show_started(name, started)


@contextmanager
def said_when_interrupted(home: Home, name: str, command: str) -> Iterator[None]:
    """After Ctrl-C machines may run, and cost: say so, and what goes on and what ends them."""
    try:
        yield
    except KeyboardInterrupt:
        folder = home.cluster(name)
        if access.read_id(folder) and stored.provider(folder) not in (None, "attach"):
            end = "" if command == "stop" else f", `clusterkit stop {name}` ends it"
            tell(
                f"\nWhat there is of {name!r} by now stays as it is. `clusterkit {command} {name}` "
                f"goes on{end}."
            )
        raise


def agreement(yes: bool, as_json: bool) -> Callable[[Display], Callable[[Plan], None]]:
    """How a plan is shown and consented to: only where something is made, paid for or taken out."""

    def over(display: Display) -> Callable[[Plan], None]:
        def agree(plan: Plan) -> None:
            if (plan.missing or plan.table or plan.asks) and not as_json:
                for line in _plan_lines(plan):
                    display.say(line)
            for question in plan.asks:
                if yes:  # who agrees beforehand is told all the same
                    display.say(question)
                    continue
                with display.paused():
                    confirm(f"{question}. Go on?", yes)
            if plan.missing and plan.price is not None and not plan.table:
                with display.paused():
                    confirm(f"This costs {plan.price:.2f} {plan.currency} an hour. Go on?", yes)

        return agree

    return over


def show_started(name: str, started: Started) -> None:
    for note in started.notes:
        if note.startswith("no "):
            click.echo(f"  {note}")
    facts = started.facts
    gpus = f", {len(facts.gpus)} GPU{'' if len(facts.gpus) == 1 else 's'}" if facts.gpus else ""
    nodes = f"{len(started.nodes)} machines, " if len(started.nodes) > 1 else ""
    word = "attached" if facts.provider == "attach" else "up"
    click.echo(
        f"Cluster {name!r} is {word}: SLURM {facts.slurm_version}, {nodes}{facts.cpus} CPUs, "
        f"{facts.memory / 1024:.1f} GiB{gpus}; changed {started.changed}, {started.seconds:.1f} s."
    )


def _plan_lines(plan: Plan) -> list[str]:
    missing = {machine.name for machine in plan.missing}
    lines = table(plan.table)
    if not plan.table:
        lines = [_machine_line(one, one.name in missing) for one in plan.machines]
    lines += [f"{one.name}: no longer wanted" for one in plan.surplus]
    if plan.packages:
        lines.append(f"packages to install: {' '.join(plan.packages)}")
    if plan.price is not None and not plan.table:
        lines.append(f"price: {plan.price:.2f} {plan.currency} an hour")
    return [*lines, *plan.notes]


def _machine_line(machine: Machine, missing: bool) -> str:
    words = [" and ".join(machine.roles)]
    if machine.group:
        words[0] += f" ({machine.group})"
    if machine.cpus:
        words.append(f"{machine.cpus} CPUs")
    if machine.memory:
        words.append(f"{machine.memory / 1024:.1f} GiB")
    words += [f"{gpu.type} ({gpu.device})" for gpu in machine.gpus]
    if machine.gpus_promised:
        words.append(f"{machine.gpus_promised} GPUs")
    words += ["to be made"] if missing else []
    return f"{machine.name}: {', '.join(words)}"


def show_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(asdict(plan))
        return
    for line in (*_plan_lines(plan), *plan.asks):
        click.echo(line)
    click.echo("Nothing was changed (--dry-run).")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, the first of which is the head, as aligned lines."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@click.command("stop")
@click.argument("name")
@click.option("--harvest", is_flag=True, help="Bring everything of its experiments in first.")
@click.option("--discard", is_flag=True, help="Stop although results would be lost.")
@click.option("--abandon", multiple=True, metavar="NODE", help="Give up a machine of your own.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be ended.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def stop_command(
    home: Home,
    name: str,
    harvest: bool,
    discard: bool,
    abandon: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Cancel all jobs of the cluster NAME, end it, and prove that nothing of it is left.

    One that somebody else runs (`attach`) is only forgotten: its jobs go on.

    It refuses while results are on the cluster alone. Machines of your own stay, with what
    experiments wrote there; machines that were made for the cluster go. A cluster that only its
    cloud knows, not this computer, is ended with --discard alone.
    """
    if harvest and discard:
        raise UsageError("--harvest and --discard exclude each other")
    from clusterkit.cluster import ending

    cluster.require_known(name, home)
    strange = guard.stranger(home, name)
    if dry_run:
        if strange is not None:
            tell(f"{name!r} is not known on this computer: {strange.whose}; {strange.machines}")
        _show_end(home, name, as_json)
        return
    if strange is not None:
        guard.claim_before_end(home, name, strange, discard=discard, yes=yes)
    guard.settle_before_end(home, name, harvest=harvest, discard=discard, yes=yes)
    with said_when_interrupted(home, name, "stop"), Display(silent=as_json) as display:
        stopped = ending.stop(home, name, watch=display, abandon=abandon)
    if as_json:
        print_json(asdict(stopped))
    elif stopped.machines:
        machines = f"{len(stopped.machines)} machine{'' if len(stopped.machines) == 1 else 's'}"
        click.echo(
            f"Cluster {name!r} has ended: {machines} ({', '.join(stopped.machines)}). Looked for "
            f"{', '.join(stopped.looked_for)}: none left; {stopped.seconds:.1f} s."
        )
    elif stopped.looked_for and stopped.proved:
        click.echo(
            f"Cluster {name!r} had no machines. Looked for {', '.join(stopped.looked_for)}: none "
            f"left; {stopped.seconds:.1f} s."
        )
    elif stopped.attached:
        click.echo(
            f"Cluster {name!r} is forgotten here; nothing was changed on it, and its jobs go on."
        )
    elif stopped.processes == 0:
        click.echo(f"Cluster {name!r} was not running; nothing of it is left.")
    else:
        click.echo(
            f"Cluster {name!r} has ended: {stopped.jobs} jobs cancelled, {stopped.processes} "
            f"processes ended, none left, no port left; {stopped.seconds:.1f} s."
        )
    if not as_json:
        for line in stopped.stays:
            click.echo(f"Kept: image {line}. `clusterkit image remove` ends it.")


def _show_end(home: Home, name: str, as_json: bool) -> None:
    status = looking.status(home, name, ask=False)
    unfinished = guard.unharvested(home, name)
    if as_json:
        print_json({**asdict(status), "unharvested": unfinished})
        return
    what = f"{status.running} running and {status.pending} waiting job elements"
    would = "go on" if status.provider == "attach" else "be cancelled"
    click.echo(f"Cluster {name!r} is {status.state}: {what} would {would}.")
    if unfinished:
        click.echo(f"not harvested: {', '.join(unfinished)}")
    click.echo("Nothing was stopped (--dry-run).")


def show_status(home: Home, name: str, check: bool, as_json: bool) -> None:
    """How a cluster is; with `check` after jobs have run on every node that is not busy."""
    if check:
        with Display(silent=as_json) as display:
            lifecycle.check(home, name, display)
    status = looking.status(home, name, say=tell)
    if as_json:
        print_json(asdict(status))
        return
    click.echo(f"{status.name}  {status.provider}  {status.state}")
    for line in node_lines(status.nodes):
        click.echo(f"  {line}")
    click.echo(f"  jobs: {status.running} running, {status.pending} waiting")
    if status.problem:
        click.echo(f"  {status.problem}")


#: More nodes than this are counted, not listed: somebody else's cluster may have thousands.
_NODES = 40


def node_lines(nodes: Sequence[Node]) -> list[str]:
    """A line for each node, or for each state where there are many."""
    if len(nodes) > _NODES:
        counts = Counter(node.state for node in nodes)
        return [f"{count} nodes {state}" for state, count in counts.most_common()]
    lines = []
    for node in nodes:
        gres = f", {node.gres}" if node.gres else ""
        reason = f" ({node.reason})" if node.reason else ""
        lines.append(
            f"{node.name}: {node.state}{reason}, {node.cpus_busy} of {node.cpus} CPUs busy, "
            f"{node.memory / 1024:.1f} GiB{gres}"
        )
    return lines


@click.command("resize")
@click.argument("name")
@click.argument("counts", nargs=-1, metavar="[GROUP=COUNT]...")
@click.option("--now", is_flag=True, help="Do not wait for jobs: put them back into the queue.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def resize_command(
    home: Home,
    name: str,
    counts: tuple[str, ...],
    now: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give worker groups of the cluster NAME other counts, in clusterkit.yaml and in the world.

    Nodes that go are drained first: their jobs end in peace. Without a count, a resize that was
    interrupted is finished. `workers=N` means the only group.

    \b
      clusterkit resize lab cpu=4
    """
    from clusterkit.cluster import resize

    wishes = _counts(counts)
    if dry_run:
        show_plan(resize.preview(home, name, wishes), as_json)
        return
    agreed = agreement(yes, as_json)
    with said_when_interrupted(home, name, "resize"), Display(silent=as_json) as display:
        done = resize.resize(home, name, wishes, agree=agreed(display), watch=display, now=now)
    if as_json:
        print_json(asdict(done))
        return
    if done.ended:
        click.echo(f"Ended: {', '.join(done.ended)}.")
    show_started(name, done.started)


def _counts(words: Sequence[str]) -> dict[str, int]:
    found, problems = {}, []
    for word in words:
        group, equals, count = word.partition("=")
        if not equals or not count.isdigit() or not group:
            problems.append(f"{word!r} is not GROUP=COUNT")
        elif group in found:
            problems.append(f"{group} is given twice")
        else:
            found[group] = int(count)
    if problems:
        raise UsageError("; ".join(problems))
    return found


@click.command("list")
@click.option("--all", "everywhere", is_flag=True, help="Ask all regions of all clouds.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_obj
def list_command(home: Home, everywhere: bool, as_json: bool) -> int:
    """List the clusters and how they are; of clouds also those that this computer does not know.

    The exit code is 1 when a cloud could not be asked.
    """
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        tell(line)

    found = looking.list_(home, everywhere=everywhere, warn=warn, say=tell)
    code = 1 if warnings else 0
    if as_json:
        print_json([asdict(status) for status in found])
        return code
    rows = [("NAME", "PROVIDER", "STATE", "NODES", "RUNNING", "WAITING", "")]
    rows += [
        (
            status.name,
            status.provider,
            status.state,
            str(len(status.nodes)) if status.nodes else "-",
            str(status.running) if status.found is None else "-",
            str(status.pending) if status.found is None else "-",
            " ".join(status.problem.splitlines()),
        )
        for status in found
    ]
    for line in table(rows):
        click.echo(line)
    return code


@click.command(
    "ssh", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh_command(home: Home, name: str, command: Sequence[str]) -> int:
    """A shell on the head of the cluster NAME, or on NODE, or COMMAND there.

    On the head you are the account that jobs run as, on a NODE the one that sets machines up. The
    command's exit code is passed on.

    \b
      clusterkit ssh lab
      clusterkit ssh lab -- squeue --me
      clusterkit ssh lab lab-cpu-1 -- sudo journalctl -u slurmd
    """
    words = list(command)
    node = words.pop(0) if words and words[0] != "--" and _is_node(home, name, words[0]) else ""
    if words[:1] == ["--"]:
        del words[0]
    if len(words) == 1 and set(words[0]) & set(" |;&<>$"):
        words = ["sh", "-c", words[0]]  # as ssh itself understands it
    if node:
        code = cluster.node_transport(name, home, node, say=tell).interactive(words)
    else:
        connection = cluster.connect(name, home, say=tell)
        shell = (
            []
            if not isinstance(connection.transport, Local)
            else [os.environ.get("SHELL") or "/bin/sh"]
        )
        code = connection.transport.interactive(words or shell, env=connection.env)
    return 128 - code if code < 0 else code


def _is_node(home: Home, name: str, word: str) -> bool:
    from clusterkit.cluster import facts

    found = facts.read(home.cluster(name))
    return found is not None and word in found.hosts
