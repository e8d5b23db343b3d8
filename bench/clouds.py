"""What clouds cost in calls and seconds, against their doubles in tests/doubles.

    python bench/clouds.py calls    how many calls a start and a stop make, for 2 and for 32 workers
    python bench/clouds.py image    how much faster a start is from a saved image; boots
                                    systemd-nspawn machines in the doubles' networks, as root

`make bench-calls` and `make bench-image`. No account is needed, and nothing leaves this machine but
what apt fetches.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from clusterkit import paths
from clusterkit.cluster import ending, lifecycle
from clusterkit.cluster.cloud import imaging
from clusterkit.cluster.nspawn import base
from clusterkit.cluster.watch import Nobody
from clusterkit.paths import Home

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "contract")]

import ec2_cluster  # noqa: E402
import gce_cluster  # noqa: E402
from doubles.aws import Aws  # noqa: E402
from doubles.gce import Gce  # noqa: E402
from doubles.hosts import Hosts  # noqa: E402

REPEATS = 3
WORKERS = (2, 32)
COMMANDS = ("plan", "start", "start again", "pause", "start after pause", "stop")
SETTINGS = """\
clusters:
  lab:
    provider: {provider}
    region: {region}
    connect: private
    image: {image}
    shared: there
    saved_image: {saved}
    head: {{types: {head}}}
    workers:
      cpu: {{count: 2, types: {worker}}}
"""


@dataclass(frozen=True)
class Cloud:
    """A cloud's double, and what to ask it for. `range`: the addresses of its hosts."""

    provider: str
    double: Callable[..., Any]
    cluster: ModuleType
    region: str
    head: str
    worker: str
    image: str
    range: str

    def settings(self, saved: str) -> str:
        return SETTINGS.format(
            provider=self.provider,
            region=self.region,
            head=self.head,
            worker=self.worker,
            image=self.image,
            saved=saved,
        )


CLOUDS = (
    Cloud(
        provider="ec2",
        double=Aws,
        cluster=ec2_cluster,
        region="us-east-1",
        head="t3.medium",
        worker="c5.large",
        image="debian-12",
        range="172.30.0.0/16",
    ),
    Cloud(
        provider="gce",
        double=Gce,
        cluster=gce_cluster,
        region="us-central1",
        head="e2-medium",
        worker="c2-standard-4",
        image="ubuntu-24.04",
        range="10.128.0.0/20",
    ),
)


def calls(cloud: Cloud, folder: Path) -> None:
    """A table of the calls of each command, without hosts: `start` ends where it would use ssh."""
    cloud.cluster.without_hosts()
    told: dict[str, list[Counter[str]]] = {command: [] for command in COMMANDS}
    for workers in WORKERS:
        with cloud.double() as double:
            double.boot_time = double.stop_time = double.end_time = 0.0
            os.environ.update(double.environment)
            mine = cloud.cluster.Computer(folder / str(workers), workers={"count": workers})
            for command in COMMANDS:
                before = double.counts()
                getattr(mine, command.partition(" ")[0])()
                told[command].append(double.counts() - before)
            assert double.left() == []
    print("| what | 2 workers | 32 workers |\n| --- | --- | --- |")
    for command, (few, many) in told.items():
        print(f"| {command} | {few.total()} | {many.total()} |")
    for command, (few, many) in told.items():
        if few != many:
            print(f"{command} differs: {dict(few - many)} {dict(many - few)}")


def timed(home: Home, settings: str) -> float:
    """Seconds of a start from nothing, with its proof; the cluster is stopped again."""
    assert home.config is not None
    home.config.write_text(settings)
    begun = time.perf_counter()
    lifecycle.start(home, "lab", watch=Nobody())
    seconds = time.perf_counter() - begun
    ending.stop(home, "lab")
    return seconds


def image(cloud: Cloud, folder: Path) -> None:
    """Starts from an image without SLURM's packages, and from what `image save` makes, in turns."""
    if os.getuid() != 0:
        sys.exit("this boots machines with systemd-nspawn: run it as root")
    file = folder / "clusterkit.yaml"
    file.write_text(cloud.settings(saved="auto"))
    hosts = Hosts(recipe=base.Recipe("debian-12", prepared=False), range=cloud.range)
    with cloud.double(hosts) as double:
        os.environ.update(double.environment)
        home = paths.home(str(folder / "home"), str(file)).prepared()
        begun = time.perf_counter()
        imaging.save(home, "lab")
        print(f"`image save`: {time.perf_counter() - begun:.1f} s\n")
        print("| plain, s | saved, s | ratio | load |\n| --- | --- | --- | --- |", flush=True)
        for _ in range(REPEATS):
            plain, saved = (timed(home, cloud.settings(saved)) for saved in ("off", "auto"))
            load = os.getloadavg()[0]
            print(f"| {plain:.1f} | {saved:.1f} | {plain / saved:.2f} | {load:.1f} |", flush=True)
        assert all(one.startswith(("image", "snapshot")) for one in double.left()), double.left()


if __name__ == "__main__":
    what = {"calls": calls, "image": image}.get("".join(sys.argv[1:]))
    if what is None:
        sys.exit(__doc__)
    for cloud in CLOUDS:
        with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as made:
            os.environ |= {"HOME": made, "CLUSTERKIT_HOME": f"{made}/home"}
            print(f"\n{cloud.provider}\n", flush=True)
            what(cloud, Path(made))
