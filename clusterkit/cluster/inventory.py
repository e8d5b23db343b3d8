"""Machines -> Ansible inventory. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from clusterkit.cluster.providers import Machine

#: Every machine gets these roles; a group's name is its role's.
_ROLES = ("munge", "slurm")


def build(
    cluster: str,
    machines: Sequence[Machine],
    variables: Mapping[str, object],
    slurm_conf: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """The inventory of `cluster`: groups munge, slurm, head, worker, and the roles' variables.

    `variables` are the provider's, `slurm_conf` the user's settings on top of the provider's own.
    """
    workers = [machine for machine in machines if "worker" in machine.roles]
    heads = [machine for machine in machines if "head" in machine.roles]
    if len(heads) != 1 or not workers:
        raise ValueError(f"{cluster}: one head and at least one worker, not {list(machines)}")
    everyone = {machine.name: None for machine in machines}
    settings = dict(_mapping(variables.get("slurm_conf")))
    if any(machine.gpus for machine in workers):
        settings["GresTypes"] = "gpu"
    settings |= slurm_conf or {}
    return {
        "all": {
            "hosts": {machine.name: dict(machine.ansible) for machine in machines},
            "vars": {
                **variables,
                "slurm_cluster_name": cluster,
                "slurm_ctld_host": f"{heads[0].name}({heads[0].address})",
                "slurm_nodes": [node(machine) for machine in workers],
                "slurm_partitions": [partition(workers)],
                "slurm_gres": [line for machine in workers for line in gres(machine)],
                "slurm_verify_gpus": min(len(machine.gpus) for machine in workers),
                "slurm_conf": settings,
            },
            "children": {
                **{role: {"hosts": dict(everyone)} for role in _ROLES},
                "head": {"hosts": {machine.name: None for machine in heads}},
                "worker": {"hosts": {machine.name: None for machine in workers}},
            },
        }
    }


def node(machine: Machine) -> dict[str, object]:
    """The NodeName line."""
    line: dict[str, object] = {
        "NodeName": machine.name,
        "NodeAddr": machine.address,
        "CPUs": machine.cpus,
        "RealMemory": machine.memory,
    }
    if machine.gpus:
        types = Counter(gpu.type for gpu in machine.gpus)
        line["Gres"] = ",".join(f"gpu:{name}:{count}" for name, count in types.items())
    line["State"] = "UNKNOWN"
    return line


def partition(workers: Sequence[Machine]) -> dict[str, object]:
    """One partition of all workers. A job that names no memory gets its processors' share of it."""
    return {
        "PartitionName": "main",
        "Nodes": "ALL",
        "Default": "YES",
        "MaxTime": "INFINITE",
        "DefMemPerCPU": min(machine.memory // machine.cpus for machine in workers),
        "State": "UP",
    }


def gres(machine: Machine) -> list[dict[str, object]]:
    """The lines of gres.conf, one a GPU."""
    return [
        {"NodeName": machine.name, "Name": "gpu", "Type": gpu.type, "File": gpu.device}
        for gpu in machine.gpus
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
