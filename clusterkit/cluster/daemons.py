"""SLURM's daemons of one private cluster, and all they started, found among this user's processes.

A process belongs to the cluster when it was started with the cluster's own SLURM_CONF: every daemon
is, and every job inherits it. A slurmstepd overwrites its environment with its title, but keeps the
cluster's slurmd.log open. Pid files are not asked: they outlive reboots, and pids are used again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster import processes
from clusterkit.cluster.processes import Process

NAMES = ("munged", "slurmctld", "slurmd")


@dataclass(frozen=True, slots=True)
class Running:
    """What runs of one cluster."""

    daemons: Mapping[str, tuple[Process, ...]]  # by name; more than one only after a mishap
    steps: tuple[Process, ...]  # slurmstepd, one for each step of each job
    jobs: tuple[Process, ...]  # what the steps started
    setup: tuple[Process, ...]  # Ansible's, of a `start` that was killed

    @property
    def all(self) -> tuple[Process, ...]:
        daemons = tuple(one for found in self.daemons.values() for one in found)
        return (*daemons, *self.steps, *self.jobs, *self.setup)


def running(slurm_conf: str, slurmd_log: Path, ansible_home: str) -> Running:
    """All processes of the cluster with this slurm.conf, log and Ansible folder."""
    everybody = processes.mine()
    spared = processes.ancestors_and_self()
    log = str(slurmd_log.resolve())
    daemons: dict[str, list[Process]] = {name: [] for name in NAMES}
    steps: list[Process] = []
    jobs: list[Process] = []
    setup: list[Process] = []
    for process in everybody:
        if process.name == "slurmstepd":
            if log in processes.open_files(process):
                steps.append(process)
            continue
        environment = processes.environment(process)
        if environment.get("ANSIBLE_HOME") == ansible_home and process.pid not in spared:
            setup.append(process)
        elif environment.get("SLURM_CONF") != slurm_conf:
            continue
        elif process.name in daemons:
            daemons[process.name].append(process)
        elif process.name == "slurmscriptd":
            continue  # slurmctld's helper; it ends with it
        elif "SLURM_JOB_ID" in environment and process.pid not in spared:
            jobs.append(process)
    known = {process.pid for process in jobs}
    jobs += [
        process
        for process in processes.descendants(steps, everybody)
        if process.pid not in known | spared and process.name != "slurmstepd"
    ]
    return Running(
        {name: _without_children(found) for name, found in daemons.items()},
        tuple(steps),
        tuple(jobs),
        tuple(setup),
    )


def job_of(step: Process) -> str:
    """The job id in a slurmstepd's title ("slurmstepd: [17.batch]"); empty before it has one."""
    match = re.search(r"\[(\d+)\.", processes.title(step))
    return match[1] if match else ""


def _without_children(found: list[Process]) -> tuple[Process, ...]:
    """Without a daemon's own forks, which bear its name for a moment."""
    pids = {process.pid for process in found}
    return tuple(process for process in found if process.parent not in pids)
