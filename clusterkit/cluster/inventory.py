"""Machines -> Ansible inventory. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clusterkit.cluster.providers import Machine

#: Every machine gets these roles; a group's name is its role's.
_EVERYWHERE = ("munge", "slurm")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the settings file says about all machines of a cluster that are reached by ssh."""

    cluster_id: str
    user: str  # jobs run as it
    uid: int
    user_key: str  # the public key that lets `parrun` in as `user`
    known_hosts: tuple[str, ...]  # "name ssh-ed25519 AAAA...", for the machines themselves
    accounting: bool
    shared: str  # "nfs", "bind" or "there"
    owned: bool  # the machines are the cluster's alone
    own_uv: bool  # the head cannot run this machine's uv, and gets one of its own
    cgroups: bool  # every machine can fence jobs with cgroups
    partitions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def build(
    cluster: str,
    machines: Sequence[Machine],
    variables: Mapping[str, object],
    slurm_conf: Mapping[str, object] | None = None,
    settings: Settings | None = None,
) -> dict[str, object]:
    """The inventory of `cluster`: groups named for the roles, and the roles' variables.

    `variables` are the provider's, `slurm_conf` the user's settings on top of the provider's own;
    `settings` are there for machines that are reached by ssh.
    """
    workers = [machine for machine in machines if "worker" in machine.roles]
    heads = [machine for machine in machines if "head" in machine.roles]
    if len(heads) != 1 or not workers:
        raise ValueError(f"{cluster}: one head and at least one worker, not {list(machines)}")
    head = heads[0]
    conf = dict(_mapping(variables.get("slurm_conf")))
    if any(machine.gpus for machine in workers):
        conf["GresTypes"] = "gpu"
    conf |= slurm_conf or {}
    groups = {
        "head": _hosts(heads),
        "worker": _hosts(workers),
        **{role: _hosts(machines) for role in _EVERYWHERE},
    }
    shared: dict[str, object] = {
        **variables,
        "slurm_cluster_name": cluster,
        # SLURM's daemons know themselves by what their machine calls itself.
        "slurm_ctld_host": f"{head.hostname or head.name}({head.address})",
        "slurm_nodes": [node(machine) for machine in workers],
        "slurm_partitions": partitions(workers, settings.partitions if settings else {}),
        "slurm_gres": [line for machine in workers for line in gres(machine)],
        "slurm_verify_gpus": min(len(machine.gpus) for machine in workers),
        "slurm_conf": conf,
    }
    if settings is not None:
        shared |= _shared(cluster, head, machines, settings)
        groups["base"] = _hosts(machines)
        if settings.shared != "bind":
            groups["shared_home"] = _hosts(machines)
        groups["nvidia"] = _hosts(
            [machine for machine in machines if machine.gpus or machine.gpus_promised]
        )
        if settings.own_uv:
            groups["python_env"] = _hosts(heads)
        if settings.accounting:
            groups["slurm_accounting"] = _hosts(heads)
    return {
        "all": {
            "hosts": {machine.name: _host(machine, settings) for machine in machines},
            "vars": shared,
            "children": {name: {"hosts": hosts} for name, hosts in groups.items()},
        }
    }


def _shared(
    cluster: str, head: Machine, machines: Sequence[Machine], settings: Settings
) -> dict[str, object]:
    return {
        "cluster_id": settings.cluster_id,
        "cluster_name": cluster,
        "base_hosts": [
            {
                "name": " ".join(dict.fromkeys([one.name, one.hostname or one.name])),
                "address": one.address,
            }
            for one in machines
        ],
        "base_user": settings.user,
        "base_uid": settings.uid,
        "base_user_key": settings.user_key,
        "base_known_hosts": "\n".join(settings.known_hosts),
        "base_owns_machine": settings.owned,
        "munge_service_manager": "systemd",
        "munge_key_source": MUNGE_KEY,
        "slurm_service_manager": "systemd",
        "slurm_accounting": settings.accounting,
        "slurm_cgroups": settings.cgroups,
        "shared_home_kind": settings.shared,
        # On machines of the user's own, what else is below /home stays in sight.
        "shared_home_folder": "/home" if settings.owned else f"/home/{settings.user}",
        "shared_home_server": head.address,
        "shared_home_network": [one.address for one in machines],
    }


#: Where a machine finds the cluster's munge key; it comes there over ssh, never through Ansible.
MUNGE_KEY = "/etc/clusterkit/munge.key"


def _host(machine: Machine, settings: Settings | None) -> dict[str, object]:
    if settings is None:
        return dict(machine.ansible)
    return {**machine.ansible, "gpus_promised": machine.gpus_promised, "node_name": machine.name}


def _hosts(machines: Sequence[Machine]) -> dict[str, None]:
    return {machine.name: None for machine in machines}


def node(machine: Machine) -> dict[str, object]:
    """The NodeName line."""
    line: dict[str, object] = {
        "NodeName": machine.name,
        **({"NodeHostname": machine.hostname} if machine.hostname else {}),
        "NodeAddr": machine.address,
        "CPUs": machine.cpus,
        "RealMemory": machine.memory,
    }
    if machine.gpus:
        types = Counter(gpu.type for gpu in machine.gpus)
        line["Gres"] = ",".join(f"gpu:{name}:{count}" for name, count in types.items())
    line["State"] = "UNKNOWN"
    return line


def partitions(
    workers: Sequence[Machine], wishes: Mapping[str, Mapping[str, object]]
) -> list[dict[str, object]]:
    """One partition for each group of workers, the first one the default.

    A job that names no memory gets its processors' share of it. `wishes` are the settings' own
    keys of PartitionName lines, by group.
    """
    lines: list[dict[str, object]] = []
    for group in dict.fromkeys(worker.group for worker in workers):
        members = [worker for worker in workers if worker.group == group]
        line: dict[str, object] = {
            "PartitionName": group or "main",
            "Nodes": ",".join(worker.name for worker in members) if group else "ALL",
            "Default": "NO" if lines else "YES",
            "MaxTime": "INFINITE",
            "DefMemPerCPU": min(member.memory // member.cpus for member in members),
            "State": "UP",
        }
        lines.append({**line, **wishes.get(group, {})})
    return lines


def gres(machine: Machine) -> list[dict[str, object]]:
    """The lines of gres.conf, one a GPU."""
    return [
        {"NodeName": machine.name, "Name": "gpu", "Type": gpu.type, "File": gpu.device}
        for gpu in machine.gpus
    ]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
