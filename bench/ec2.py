"""What EC2 costs in calls and seconds, against the double of AWS in tests/doubles.

    python bench/ec2.py calls    how many calls a start and a stop make, for 2 and for 32 workers
    python bench/ec2.py image    how much faster a start is from a saved image; boots systemd-nspawn
                                 machines in 172.30.0.0/16 behind the double, as root

`make bench-ec2` and `make bench-image`. No account is needed, and nothing leaves this machine but
what apt fetches.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from clusterkit import paths
from clusterkit.cluster import ending, lifecycle
from clusterkit.cluster.cloud import imaging
from clusterkit.cluster.nspawn import base
from clusterkit.cluster.watch import Nobody
from clusterkit.paths import Home

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "contract")]

from doubles.aws import Aws  # noqa: E402
from doubles.hosts import Hosts  # noqa: E402

REPEATS = 3
COMMANDS = ("plan", "start", "start again", "pause", "start after pause", "stop")
SETTINGS = """\
clusters:
  lab:
    provider: ec2
    region: us-east-1
    connect: private
    image: debian-12
    shared: there
    saved_image: {saved}
    head: {{types: t3.medium}}
    workers:
      cpu: {{count: 2, types: c5.large}}
"""


def calls(folder: Path) -> None:
    """A table of the calls of each command, without hosts: `start` ends where it would use ssh."""
    import ec2_cluster

    ec2_cluster.without_hosts()
    told: dict[str, list[Counter[str]]] = {command: [] for command in COMMANDS}
    for workers in (2, 32):
        with Aws() as aws:
            aws.boot_time = aws.stop_time = aws.end_time = 0.0
            os.environ.update(aws.environment)
            mine = ec2_cluster.Computer(folder / str(workers), workers={"count": workers})
            for command in COMMANDS:
                before = aws.counts()
                getattr(mine, command.partition(" ")[0])()
                told[command].append(aws.counts() - before)
            assert aws.left() == []
    print("| what | 2 workers | 32 workers |\n| --- | --- | --- |")
    for command, (few, many) in told.items():
        print(f"| {command} | {few.total()} | {many.total()} |")
    for command, (few, many) in told.items():
        if few != many:
            print(f"{command} differs: {dict(few - many)} {dict(many - few)}")


def timed(home: Home, saved: str) -> float:
    """Seconds of a start from nothing, with its proof; the cluster is stopped again."""
    assert home.config is not None
    home.config.write_text(SETTINGS.format(saved=saved))
    begun = time.perf_counter()
    lifecycle.start(home, "lab", watch=Nobody())
    seconds = time.perf_counter() - begun
    ending.stop(home, "lab")
    return seconds


def image(folder: Path) -> None:
    """Starts from an image without SLURM's packages, and from what `image save` makes, in turns."""
    if os.getuid() != 0:
        sys.exit("this boots machines with systemd-nspawn: run it as root")
    file = folder / "clusterkit.yaml"
    file.write_text(SETTINGS.format(saved="auto"))
    hosts = Hosts(recipe=base.Recipe("debian-12", prepared=False), range="172.30.0.0/16")
    with Aws(hosts) as aws:
        os.environ.update(aws.environment)
        home = paths.home(str(folder / "home"), str(file)).prepared()
        begun = time.perf_counter()
        imaging.save(home, "lab")
        print(f"`image save`: {time.perf_counter() - begun:.1f} s\n")
        print("| plain, s | saved, s | ratio | load |\n| --- | --- | --- | --- |", flush=True)
        for _ in range(REPEATS):
            plain, saved = timed(home, "off"), timed(home, "auto")
            load = os.getloadavg()[0]
            print(f"| {plain:.1f} | {saved:.1f} | {plain / saved:.2f} | {load:.1f} |", flush=True)
        assert all(one.startswith(("image", "snapshot")) for one in aws.left()), aws.left()


if __name__ == "__main__":
    what = {"calls": calls, "image": image}.get("".join(sys.argv[1:]))
    if what is None:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as made:
        os.environ |= {"HOME": made, "CLUSTERKIT_HOME": f"{made}/home"}
        what(Path(made))
