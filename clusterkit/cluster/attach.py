"""A SLURM that somebody else runs: looked at, never changed.

The first use attaches: what `parrun` needs is asked once and kept (where things are, which Python,
how large arrays may be, how long a job may run unless told), and again when the settings change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from clusterkit import slurm
from clusterkit.cluster import config, stored, values
from clusterkit.cluster.facts import Facts
from clusterkit.cluster.spec import AttachSpec
from clusterkit.errors import ClusterNotStarted, CommandFailed
from clusterkit.paths import Home
from clusterkit.transport import Address, Local, Ssh, Transport

#: The lowest version of the Python that runs clusterkit.node.
_PYTHON = (3, 9)
#: Seconds for which SLURM's commands may think: they try again when the controller is slow.
_PATIENCE = 120.0
# Python 2 understands this too, and -E and -s, which -I is made of.
_VERSION = "import sys; print('%d %d' % sys.version_info[:2]); print(sys.executable)"
_NEWER = "for minor in 14 13 12 11 10 9; do command -v python3.$minor; done; true"
# The nearest folder that is there has to let us in.
_WRITABLE = """
folder=$1
while ! [ -e "$folder" ]; do folder=$(dirname "$folder"); done
[ -d "$folder" ] && [ -w "$folder" ] && [ -x "$folder" ] || printf %s "$folder"
"""


def remembered(home: Home, name: str) -> Facts:
    """Attach to the cluster `name` and keep what was found; nothing is kept of a failure.

    Takes no lock: it only reads there, and two at once write the same. Raises ClusterNotStarted
    with what is missing there, Unreachable.
    """
    source = config.source(home, name)
    assert isinstance(source.spec, AttachSpec)
    found = attach(name, source.spec)
    folder = home.cluster(name)
    stored.write(folder, source.spec, source.file)
    found.write(folder)
    return found


def attach(name: str, spec: AttachSpec) -> Facts:
    """Look at the SLURM of `spec`. Raises ClusterNotStarted with what is missing, Unreachable."""
    return _Visit(name, spec).facts()


class _Visit:
    """One look at a cluster."""

    def __init__(self, name: str, spec: AttachSpec) -> None:
        self._name, self._spec = name, spec
        self._address = _address(spec.host) if spec.host else None
        self._client: Transport = Ssh(self._address) if self._address is not None else Local()
        self._where = spec.host or "this machine"
        self._env = {"SLURM_CONF": spec.slurm_conf} if spec.slurm_conf else {}
        self._login: dict[str, str] | None = None

    def facts(self) -> Facts:
        spec, address = self._spec, self._address
        self._refuse_chatter()
        self._find_slurm()
        settings = slurm.parse_config(self._slurm(slurm.show_config_argv()))
        partitions = self._partitions()
        limits = [one.default_time for one in partitions if one.default_time is not None]
        chosen = ",".join(one.name for one in partitions)
        nodes = self._slurm(
            ["sinfo", "--noheader", "--Node", "--format=%N|%m", f"--partition={chosen}"]
        )
        memory = dict(line.split("|", 1) for line in nodes.splitlines() if "|" in line)
        return Facts(
            cluster=self._name,
            provider="attach",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            slurm_conf=self._env.get("SLURM_CONF", ""),
            slurm_bin="",
            slurm_version=settings.get("SLURM_VERSION", ""),
            python=self._python(),
            root=self._root(),
            max_array_size=int(settings.get("MaxArraySize", "1001")),
            default_time=min(limits, default=None),
            cpus=sum(one.cpus for one in partitions) or 1,
            memory=sum(int(size) for size in memory.values() if size.isdigit()),
            gpus=(),
            head="head",
            hosts={"head": address} if address is not None else {},
            sbatch=dict(spec.sbatch),
            path=self._env.get("PATH", ""),
        )

    def _error(self, words: str) -> ClusterNotStarted:
        """What is known here can be used all the same."""
        return ClusterNotStarted(f"cluster {self._name!r}: {words}")

    def _refuse_chatter(self) -> None:
        """What a shell says unasked would stand in all that commands answer."""
        said = self._client.run(["true"]).text.strip()
        if said:
            raise self._error(
                f"the shell on {self._where} prints {said[:200]!r} with every command. Let its "
                "start-up file (~/.bashrc) print only where somebody reads it: "
                "`case $- in *i*) ... ;; esac`"
            )

    def _find_slurm(self) -> None:
        """SLURM's commands: on the plain PATH, or on the one that a login has."""
        conf = self._spec.slurm_conf
        # SLURM's commands would look for it elsewhere, for a minute.
        if conf and self._client.run(["test", "-r", conf], check=False).returncode != 0:
            raise self._error(
                f"there is no {conf} on {self._where} that this account may read. Correct "
                "`slurm_conf:` in the settings, or leave it out."
            )
        argv = ["sh", "-c", "command -v sbatch"]
        if self._client.run(argv, env=self._env, check=False).returncode == 0:
            return
        login = self._logged_in()
        if "PATH" in login:
            env = {"PATH": login["PATH"]}
            if "SLURM_CONF" in login:
                env["SLURM_CONF"] = login["SLURM_CONF"]
            self._env = {**env, **self._env}
        if self._client.run(argv, env=self._env, check=False).returncode != 0:
            raise self._error(
                f"there is no sbatch on {self._where}, neither for a plain command nor in a login "
                "shell. Is this the host that jobs are submitted from? Where SLURM comes as a "
                "module, load it in ~/.profile there."
            )

    def _logged_in(self) -> Mapping[str, str]:
        """The environment of a login shell there: PATH, and folders such as $SCRATCH."""
        if self._login is None:
            script = 'exec "${SHELL:-/bin/sh}" -lc env'
            done = self._client.run(["sh", "-c", script], check=False)
            if done.returncode != 0:  # csh knows no -lc
                done = self._client.run(["sh", "-lc", "env"], check=False)
            self._login = slurm.parse_config(done.text)
        return self._login

    def _slurm(self, argv: list[str]) -> str:
        try:
            return self._client.run(argv, env=self._env, timeout=_PATIENCE).text
        except CommandFailed as error:
            raise self._error(
                f"SLURM does not answer on {self._where}: {error}. Try `{argv[0]}` there by hand; "
                "`slurm_conf:` in the settings names its slurm.conf where it is not the usual one."
            ) from error

    def _partitions(self) -> list[slurm.Partition]:
        """Those that jobs go to: the chosen ones, else the default one."""
        listed = slurm.parse_partitions(self._slurm(slurm.partitions_argv()))
        there = ", ".join(dict.fromkeys(one.name for one in listed)) or "none"
        chosen = self._spec.sbatch.get("partition", "").split(",")
        if chosen == [""]:
            default = [one for one in listed if one.default]
            if not default:
                raise self._error(
                    f"no partition on {self._where} is the default one: name one with "
                    f"`sbatch: {{partition: ...}}` in the settings; there are {there}"
                )
            return default
        unknown = [name for name in chosen if name not in {one.name for one in listed}]
        if unknown:
            raise self._error(f"{self._where} has no partition {unknown[0]!r}; it has {there}")
        return [one for one in listed if one.name in chosen]

    def _python(self) -> str:
        python = self._spec.python
        try:
            done = self._client.run([python, "-E", "-s", "-c", _VERSION], env=self._env)
            version, executable = done.text.splitlines()
            found = tuple(int(part) for part in version.split())
        except (CommandFailed, ValueError) as error:
            why = f"{error}" if isinstance(error, CommandFailed) else "it is no Python"
            raise self._error(
                f"{python!r} cannot be run on {self._where} ({why}). Name a Python with `python:` "
                f"in the settings, by its whole path{self._newer()}."
            ) from error
        if found < _PYTHON:
            raise self._error(
                f"{executable or python} on {self._where} is Python {version.replace(' ', '.')}; "
                f"3.9 or newer is needed. Name another with `python:` in the settings"
                f"{self._newer()}."
            )
        return executable or python

    def _newer(self) -> str:
        """Pythons that would do, as the end of a sentence."""
        found = self._client.run(["sh", "-c", _NEWER], env=self._env, check=False).text.split()
        return f"; there is {', '.join(found)}" if found else ""

    def _root(self) -> str:
        """The folder as an absolute path there; `~` and `$NAME` mean what they mean there."""
        root = re.sub(r"^~(?=/|$)", "$HOME", self._spec.root)
        path = _expanded(root, self._variable).rstrip("/")
        if not path.startswith("/"):
            raise self._error(
                f"`root: {self._spec.root}` means {path!r} on {self._where}, which is no path from "
                "its root. Write the path itself."
            )
        closed = self._client.run(["sh", "-c", _WRITABLE.strip(), "sh", path]).text
        if closed:
            raise self._error(
                f"the folder {path} cannot be made on {self._where}: {closed} is no folder that "
                "this account may write to. Name another with `root:` in the settings."
            )
        return path

    def _variable(self, name: str) -> str:
        plain = self._client.run(["sh", "-c", f'printf %s "${{{name}-}}"']).text
        found = plain or self._logged_in().get(name, "")
        if not found:
            raise self._error(
                f"`root: {self._spec.root}`: ${name} has no value on {self._where}. Write the path "
                "itself."
            )
        return found


def _address(text: str) -> Address:
    """As the user's own ssh settings know it."""
    host = values.host(text)
    return Address(host=host.name, user=host.user, port=host.port, own_settings=True)


def _expanded(path: str, value: Callable[[str], str]) -> str:
    """`path` with the values of its `$NAME` and `${NAME}`; all else is a letter like any other."""
    return re.sub(
        r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))",
        lambda found: value(found[1] or found[2]),
        path,
        flags=re.ASCII,
    )
