"""A SLURM that somebody else runs: looked at, never changed.

What `parrun` needs is asked once and kept: where the home is, which Python, how large arrays may
be, how long a job may run unless told.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from clusterkit import slurm
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.spec import AttachSpec
from clusterkit.errors import ClusterError, CommandFailed
from clusterkit.transport import Address, Local, Ssh, Transport

#: The lowest version of the Python that runs clusterkit.node.
_PYTHON = (3, 9)


def attach(name: str, spec: AttachSpec) -> Facts:
    """Connect to the SLURM of `spec`. Raises ClusterError with what is missing there."""
    address = _address(spec.host) if spec.host else None
    client: Transport = Ssh(address) if address is not None else Local()
    where = spec.host or "this machine"
    conf = spec.slurm_conf or ""
    env = {"SLURM_CONF": conf} if conf else {}
    show = _asked(client, slurm.show_config_argv(), env, name, where)
    config = slurm.parse_config(show)
    listed = slurm.parse_partitions(_asked(client, slurm.partitions_argv(), env, name, where))
    chosen = spec.sbatch.get("partition")
    partitions = [one for one in listed if one.name == chosen or (not chosen and one.default)]
    if chosen and not partitions:
        raise ClusterError(
            f"cluster {name!r}: {where} has no partition {chosen!r}; it has "
            f"{', '.join(dict.fromkeys(one.name for one in listed))}"
        )
    python, root = _python(client, spec.python, name, where), _root(client, spec.root)
    nodes = client.run(
        ["sinfo", "--noheader", "--Node", "--format=%N|%m|%G"], env=env, timeout=60
    ).text
    sizes = dict(line.split("|", 2)[:2] for line in nodes.splitlines() if line.count("|") == 2)
    return Facts(
        cluster=name,
        provider="attach",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        slurm_conf=conf,
        slurm_bin="",
        slurm_version=config.get("SLURM_VERSION", ""),
        python=python,
        root=root,
        max_array_size=int(config.get("MaxArraySize", "1001")),
        default_time=partitions[0].default_time if partitions else None,
        cpus=sum(one.cpus for one in partitions) or 1,
        memory=sum(int(size) for size in sizes.values() if size.isdigit()),
        gpus=(),
        head="head",
        hosts={"head": address} if address is not None else {},
        sbatch=dict(spec.sbatch),
    )


def _address(host: str) -> Address:
    """As the user's own ssh settings know it; `user@host` is understood too."""
    user, _, rest = host.rpartition("@")
    return Address(host=rest, user=user, own_settings=True)


def _asked(client: Transport, argv: list[str], env: dict[str, str], name: str, where: str) -> str:
    try:
        return client.run(argv, env=env, timeout=60).text
    except CommandFailed as error:
        raise ClusterError(
            f"cluster {name!r}: SLURM does not answer on {where}: {error}. Are its commands on the "
            f"PATH of a plain `ssh {where} {argv[0]}`? `slurm_conf:` in the settings names its "
            "slurm.conf where it is not the usual one."
        ) from error


def _python(client: Transport, python: str, name: str, where: str) -> str:
    code = "import sys; print(sys.executable); print(*sys.version_info[:2])"
    try:
        executable, version = client.run([python, "-I", "-c", code]).text.splitlines()
    except (CommandFailed, ValueError) as error:
        raise ClusterError(
            f"cluster {name!r}: {python!r} cannot be run on {where} ({error}). Name a Python with "
            "`python:` in the settings, by its whole path."
        ) from error
    if tuple(int(part) for part in version.split()) < _PYTHON:
        raise ClusterError(
            f"cluster {name!r}: {executable} on {where} is Python {version.replace(' ', '.')}; 3.9 "
            "or newer is needed. Name another with `python:` in the settings."
        )
    return executable


def _root(client: Transport, root: str) -> str:
    """The folder as an absolute path there; `~` and `$NAME` mean what they mean there."""
    if root.startswith("/"):
        return root.rstrip("/")
    home = client.run(["sh", "-c", 'printf %s "$HOME"']).text
    if root == "~" or root.startswith("~/"):
        return f"{home}/{root[2:]}".rstrip("/")
    if "$" in root:
        # The settings' author writes in the language of the cluster's shell; quotes keep it a path.
        inner = root.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`")
        inner = inner.replace("$(", "\\$(")
        return client.run(["sh", "-c", f'printf %s "{inner}"']).text.rstrip("/")
    return f"{home}/{shlex.split(root)[0] if root else 'clusterkit'}".rstrip("/")
