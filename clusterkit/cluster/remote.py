"""Setting up machines that are reached by ssh: what must be true before, what is run, what is left.

Before anything is changed on any machine, all of them are judged together: nobody else's, one
release, enough of what was promised.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clusterkit import paths, slurm
from clusterkit.cluster import inventory
from clusterkit.cluster.access import Identity
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.providers import Machine, Provider
from clusterkit.cluster.reach import Reached
from clusterkit.cluster.spec import Built
from clusterkit.errors import ClusterError
from clusterkit.transport import Ssh

#: MiB that SLURM's packages, the database and their logs need.
_DISK = 1500

_PLACE_KEY = f"""\
set -eu
umask 077
mkdir -p {inventory.MUNGE_KEY.rpartition("/")[0]}
cat > {inventory.MUNGE_KEY}.new
mv {inventory.MUNGE_KEY}.new {inventory.MUNGE_KEY}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """Machines that were judged, and what the playbooks are told about them."""

    machines: tuple[Machine, ...]
    reached: tuple[Reached, ...]
    inventory: Mapping[str, object]
    digest: str

    @property
    def head(self) -> Reached:
        return next(one for one in self.reached if "head" in one.machine.roles)

    @property
    def done(self) -> bool:
        """Whether every machine was set up with just this, and its daemons run."""
        return all(
            one.seen.done == self.digest
            and all(one.seen.units.get(unit) == "active" for unit in self._units(one.machine))
            for one in self.reached
        )

    def _units(self, machine: Machine) -> list[str]:
        units = ["munge"]
        if "head" in machine.roles:
            units.append("slurmctld")
            units += ["slurmdbd", "mariadb"] if self._accounting else []
        if "worker" in machine.roles:
            units.append("slurmd")
        return units

    @property
    def _accounting(self) -> bool:
        every = self.inventory["all"]
        assert isinstance(every, dict)
        return bool(every["vars"].get("slurm_accounting"))


def judge(provider: Provider, identity: Identity, reached: Sequence[Reached]) -> None:
    """Raise ClusterError with every reason why these machines cannot become this cluster."""
    problems = []
    for one in reached:
        name, seen = one.machine.name, one.seen
        claim = seen.claim.split(" ", 1)
        if seen.claim and claim[0] != identity.id:
            whose = claim[1] if len(claim) > 1 else claim[0]
            problems.append(
                f"{name} belongs to another cluster, {whose!r}. End that one first, or remove "
                "/var/lib/clusterkit/cluster there if it is gone for good."
            )
        running = [unit for unit in ("slurmctld", "slurmd") if seen.units.get(unit) == "active"]
        if running and not seen.claim:
            problems.append(
                f"{name} runs a SLURM already ({', '.join(running)}) that clusterkit did not set "
                "up. Use the provider `attach` for it, or take it off the machine."
            )
        if not seen.slurm and 0 < seen.free < _DISK:
            problems.append(
                f"{name} has {seen.free} MiB of disk left, {_DISK} are needed: free some, or give "
                "it a larger disk."
            )
        problems += _wished_too_much(one, provider)
        if 0 < len(seen.gpus) < one.machine.gpus_promised:  # its driver is there: no more will come
            problems.append(
                f"{name} was promised {one.machine.gpus_promised} GPU(s), but nvidia-smi shows "
                f"{len(seen.gpus)}: give it the right machine type, or correct `gpus:`."
            )
        if not seen.system.startswith(("debian ", "ubuntu ")):
            problems.append(f"{name} runs {seen.system or 'an unknown system'}: Debian or Ubuntu")
    releases: dict[str, list[str]] = {}
    for one in reached:
        releases.setdefault(one.seen.system, []).append(one.machine.name)
    if len(releases) > 1:
        told = "; ".join(f"{system} on {', '.join(names)}" for system, names in releases.items())
        problems.append(f"one cluster needs one release, for its SLURM is the same then: {told}")
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ClusterError(
            f"the machines of {provider.cluster!r} cannot be set up, nothing was changed:\n{lines}"
        )


def _wished_too_much(one: Reached, provider: Provider) -> list[str]:
    """SLURM takes a node out that has less than slurm.conf says."""
    spec = provider.spec
    assert isinstance(spec, Built)
    wish = spec.workers.get(one.machine.group) or spec.head
    had = {"cpus": one.seen.cpus, "memory": one.seen.memory}
    return [
        f"{one.machine.name} has {had[key]}{unit}, the settings ask for {key}: {wanted}{unit}. Ask "
        "for less, or leave it out."
        for key, wanted, unit in (("cpus", wish.cpus, ""), ("memory", wish.memory, " MiB"))
        if "worker" in one.machine.roles and wanted and wanted > had[key]
    ]


def site(
    provider: Provider,
    identity: Identity,
    spec: Built,
    reached: Sequence[Reached],
    homes: str = "",
) -> Site:
    """What the playbooks are told; `homes` is what the function of that name found. Pure but for
    the keys it reads.
    """
    machines = tuple(_known(one, spec) for one in reached)
    settings = inventory.Settings(
        cluster_id=identity.id,
        user=spec.user,
        uid=spec.uid,
        user_key=identity.public_key,
        known_hosts=tuple(
            f"{one.machine.name},{one.machine.address} {key}"
            for one in reached
            for key in one.seen.host_keys
        ),
        accounting=spec.accounting,
        shared=homes or shared(provider, spec, len(reached)),
        owned=provider.disposable,
        own_uv=any(
            "head" in one.machine.roles and one.seen.processor != platform.machine()
            for one in reached
        ),
        cgroups=all(one.seen.cgroups for one in reached),
        partitions={name: group.slurm for name, group in spec.workers.items()},
    )
    built = inventory.build(
        identity.cluster, machines, provider.variables(), dict(spec.slurm), settings
    )
    every = built["all"]
    assert isinstance(every, dict)
    # How a machine is reached is no part of its set-up: a cloud gives new addresses after a pause.
    told = {
        **every,
        "hosts": {
            name: {key: value for key, value in host.items() if not key.startswith("ansible_")}
            for name, host in every["hosts"].items()
        },
    }
    digest = hashlib.sha256(playbooks() + json.dumps(told, sort_keys=True).encode()).hexdigest()
    every["vars"]["done_digest"] = digest
    return Site(machines, tuple(reached), built, digest)


def shared(provider: Provider, spec: Built, machines: int) -> str:
    """How /home becomes one on all machines, as far as nobody has to be asked."""
    if spec.shared != "auto":
        return spec.shared
    if provider.shares_by_bind:
        return "bind"
    return "there" if machines == 1 else "nfs"


def homes(provider: Provider, spec: Built, reached: Sequence[Reached]) -> str:
    """The same; where it would be NFS, the machines are asked whether /home is one already."""
    planned = shared(provider, spec, len(reached))
    head = next(one for one in reached if "head" in one.machine.roles)
    if planned != "nfs" or spec.shared != "auto" or head.seen.exports:
        return planned
    # A file that the head makes: do all others see it?
    file = head.transport.run(["mktemp", "/home/.clusterkit-XXXXXXXX"], check=False).text.strip()
    if not file:  # there is no /home, or it cannot be written
        return planned

    def sees(one: Reached) -> bool:
        return one.transport.run(["test", "-e", file], check=False).returncode == 0

    try:
        with ThreadPoolExecutor(max_workers=16) as pool:
            return "there" if all(pool.map(sees, reached)) else planned
    finally:
        head.transport.run(["rm", "-f", "--", file], check=False)


def place_munge_key(site: Site, identity: Identity) -> None:
    """Bring the secret to every machine, over ssh's standard input: no log, no argument has it."""
    key = identity.munge_key.read_bytes()

    def one(reached: Reached) -> None:
        reached.transport.run(["sh", "-c", _PLACE_KEY], input=key)

    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(one, site.reached))


def facts(provider: Provider, spec: Built, site: Site) -> Facts:
    """What `connect` needs, asked of the head."""
    show = site.head.transport.run(slurm.show_config_argv())
    config = slurm.parse_config(show.text)
    workers = [machine for machine in site.machines if "worker" in machine.roles]
    return Facts(
        cluster=provider.cluster,
        provider=provider.name,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        slurm_conf="",
        slurm_bin="",
        slurm_version=config.get("SLURM_VERSION", ""),
        python=site.head.seen.python or "python3",
        root=f"/home/{spec.user}/clusterkit",
        max_array_size=int(config["MaxArraySize"]),
        default_time=None,
        cpus=sum(machine.cpus for machine in workers),
        memory=sum(machine.memory for machine in workers),
        gpus=tuple(gpu.type for machine in workers for gpu in machine.gpus),
        id=provider.identity.id,
        head=site.head.machine.name,
        hosts={one.machine.name: one.address for one in site.reached},
        user=spec.user,
        user_key=str(provider.identity.key),
        disposable=provider.disposable,
        digest=site.digest,
    )


def _known(one: Reached, spec: Built) -> Machine:
    """The machine with what it showed, where the settings do not say otherwise."""
    group = spec.workers.get(one.machine.group)
    wish = group if group is not None else spec.head
    return replace(
        one.machine,
        hostname=one.seen.hostname if one.seen.hostname != one.machine.name else "",
        cpus=wish.cpus or one.seen.cpus,
        memory=wish.memory or one.seen.memory,
        gpus=one.seen.gpus,
        ansible=connection(one),
    )


def connection(one: Reached) -> dict[str, object]:
    """How Ansible reaches a machine, as variables of its inventory."""
    root = one.address.user == "root"
    return {
        "ansible_host": one.address.host,
        "ansible_ssh_args": shlex.join(one.transport.quiet_options),
        **({"ansible_port": one.address.port} if one.address.port else {}),
        **({"ansible_user": one.address.user} if one.address.user else {}),
        **({} if root else {"ansible_become": True}),
    }


def playbooks() -> bytes:
    """A digest of every file that the set-up is made of."""
    root: Path = paths.playbooks()
    digest = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        if ".ansible" not in file.parts:
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.digest()


def head_transport(facts: Facts) -> Ssh:
    """The head, as root."""
    return Ssh(facts.hosts[facts.head], become=True)
