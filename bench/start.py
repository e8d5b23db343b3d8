"""From freshly booted machines to a verified cluster, beside apt-get alone: `make bench-start`.

For 1 + 1, 1 + 3 and 1 + 7 machines of systemd-nspawn on this host, in one run: how long `start`
takes with accounting and its proof, and how long a raw, parallel `apt-get install` of the very same
packages takes over ssh on machines as fresh. Then a second start, the seconds of each phase, and a
start from an image that has the packages in it. Needs root.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from clusterkit import paths
from clusterkit.cluster import ending, lifecycle, reach
from clusterkit.cluster.spec import Built
from clusterkit.cluster.watch import Nobody
from clusterkit.paths import Home

WORKERS = (1, 3, 7)
IMAGES = Path(os.environ.get("CLUSTERKIT_BENCH_IMAGES", "/var/tmp/clusterkit-bench"))
SETTINGS = """\
clusters:
  {name}:
    provider: nspawn
    images: {images}
    prepared: {prepared}
    workers:
      cpu: {{count: {workers}}}
"""


def settings(folder: Path, name: str, workers: int, prepared: bool = False) -> Home:
    """A home whose settings file has this one cluster."""
    file = folder / f"{name}.yaml"
    words = {"name": name, "images": IMAGES, "prepared": str(prepared).lower(), "workers": workers}
    file.write_text(SETTINGS.format(**words))
    return paths.home(str(folder / "home"), str(file)).prepared()


def booted(home: Home, name: str) -> tuple[reach.Reached, ...]:
    """Fresh machines that answer, and nothing more."""
    spec, provider = lifecycle.made(home, name, keep=True)
    assert isinstance(spec, Built)
    assert provider is not None
    provider.create(provider.plan(), lambda _: None)
    machines = provider.machines()
    return reach.reach(provider, provider.identity, machines, 300, lambda _name, _doing: None)


def packages(reached: reach.Reached) -> list[str]:
    """What the roles install on such a machine."""
    file = paths.playbooks() / "roles" / "base" / "defaults" / "main.yml"
    of = yaml.safe_load(file.read_text())["base_packages"]
    groups = ["base", "munge", *reached.machine.roles]
    groups += ["slurm_accounting"] if "head" in reached.machine.roles else []
    return sorted({name for group in groups for name in of[group]})


def apt(reached: tuple[reach.Reached, ...]) -> float:
    """Seconds of a raw, parallel apt-get over ssh."""

    def one(machine: reach.Reached) -> None:
        install = "apt-get -q -y install --no-install-recommends " + " ".join(packages(machine))
        script = f"export DEBIAN_FRONTEND=noninteractive; apt-get -q -y update; {install}"
        machine.transport.run(["sh", "-c", script], timeout=900)

    begun = time.perf_counter()
    with ThreadPoolExecutor(max_workers=len(reached)) as pool:
        list(pool.map(one, reached))
    return time.perf_counter() - begun


def timed(home: Home, name: str) -> float:
    begun = time.perf_counter()
    lifecycle.start(home, name, watch=Nobody())
    return time.perf_counter() - begun


def main() -> None:
    if os.getuid() != 0:
        sys.exit("bench-start boots machines with systemd-nspawn: run it as root")
    begun: list[tuple[Home, str]] = []
    with tempfile.TemporaryDirectory(prefix="clusterkit-bench-") as made:
        folder = Path(made)
        try:
            rows, phases = [], {}
            for workers in WORKERS:
                home = settings(folder, f"raw{workers}", workers)
                begun.append((home, f"raw{workers}"))
                raw = apt(booted(home, f"raw{workers}"))
                ending.stop(*begun[-1])
                home = settings(folder, f"ours{workers}", workers)
                begun.append((home, f"ours{workers}"))
                booted(home, f"ours{workers}")
                ours = timed(home, f"ours{workers}")
                if workers == 3:
                    file = home.cluster("ours3") / "timings.json"
                    phases = json.loads(file.read_text())
                again = timed(home, f"ours{workers}")
                ending.stop(*begun[-1])
                rows.append((workers, raw, ours, again))
                print(f"1 + {workers}: apt-get {raw:.1f} s, start {ours:.1f} s", flush=True)
            nothing = settings(folder, "bare", 2)
            begun.append((nothing, "bare"))
            bare = timed(nothing, "bare")
            ending.stop(nothing, "bare")
            filled = settings(folder, "filled", 2, prepared=True)
            begun.append((filled, "filled"))
            timed(filled, "filled")  # makes the image
            ending.stop(filled, "filled")
            prepared = timed(filled, "filled")
            ending.stop(filled, "filled")
        finally:
            for home, name in begun:
                ending.stop(home, name)
    print("\n| machines | apt-get alone, s | start, verified, s | ratio | second start, s |")
    print("|---|---|---|---|---|")
    for workers, raw, ours, again in rows:
        print(f"| 1 + {workers} | {raw:.1f} | {ours:.1f} | {ours / raw:.2f} | {again:.1f} |")
    print("\n| phase (1 + 3) | seconds |\n|---|---|")
    for phase, seconds in phases.items():
        print(f"| {phase} | {seconds:.1f} |")
    print(f"\n1 + 2 from nothing: {bare:.1f} s; with the packages in the image: {prepared:.1f} s")


if __name__ == "__main__":
    main()
