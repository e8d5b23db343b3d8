"""Here: SLURM's daemons run as the calling user, from a private folder, on free ports.

<data folder>/clusters/<name>/
  munge/   the key, the socket, the log
  slurm/   slurm.conf, logs, state/ (kept over a stop, so that job numbers go on), spool/
  work/    experiments
  runs/    Ansible's runs
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clusterkit import slurm
from clusterkit.cluster import daemons, drain, facts, hardware, packages, private, processes
from clusterkit.cluster.daemons import Running
from clusterkit.cluster.providers import Ended, Machine, Plan, PrivateProvider, Say
from clusterkit.errors import ClusterError, CommandFailed, SetupFailed
from clusterkit.transport import Local

if TYPE_CHECKING:
    from clusterkit.cluster.access import Identity
    from clusterkit.cluster.spec import Spec

_PORTS = {"slurmctld": "SlurmctldPort", "slurmd": "SlurmdPort"}
#: Seconds for jobs to end after SIGTERM: KillWait of the role, and a little more.
_LOG_TAIL = 1 << 20  # bytes of slurmctld's log in which the newest job ids are looked for
_JOB_GRACE = 15.0
_DAEMON_GRACE = 10.0


class LocalProvider(PrivateProvider):
    """See the module. `temporary` and `devices` are for tests."""

    name = "local"
    disposable = False
    looked_for = ("processes", "ports")

    def __init__(
        self,
        spec: Spec,
        identity: Identity,
        folder: Path,
        *,
        temporary: Path = Path("/tmp"),  # noqa: S108 - not TMPDIR: it must be the same every time
        devices: Path = Path("/dev"),
    ) -> None:
        super().__init__(spec, identity, folder)
        self._devices = devices
        self._alias = private.alias(folder, temporary)
        self.base = self._alias / "c" if self._alias is not None else folder
        self.slurm_conf = f"{self.base}/slurm/slurm.conf"
        self.ansible_home = f"{self.base}/ansible"
        self._start: tuple[str, ...] = ()
        self._created = 0.0
        self._ports: dict[str, int] = {}
        self._packages: tuple[str, ...] = ()

    # -- start ------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        self._packages = packages.missing()
        if self._packages:
            packages.require_installable(self.cluster)
        machine, notes = self._machine()
        running = self._running()
        alive = [name for name in daemons.NAMES if running.daemons[name]]
        told = [f"{', '.join(alive)}: running"] if alive else []
        absent = [name for name in daemons.NAMES if name not in alive]
        told += [f"{', '.join(absent)}: to be started"] if absent else []
        return Plan((machine,), self._packages, (*told, *notes))

    def create(self, plan: Plan, say: Say) -> None:  # noqa: ARG002 - it is one machine in any case
        try:
            for part in ("munge", "slurm", "work", "ansible"):
                (self.folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._alias is not None:
                private.make_alias(self._alias, self.folder)
            private.make_key(self.folder / "munge" / "munge.key")
        except OSError as error:
            raise ClusterError(
                f"cluster {self.cluster!r}: {error.filename or self.folder} cannot be written: "
                f"{error.strerror}"
            ) from error
        running = self._running()
        self._created = time.time()
        processes.kill(running.setup)  # of a `start` that was killed; this one holds the lock
        well = self._end_broken(running)
        configured = self._configured_ports()
        for name, key in _PORTS.items():
            port = configured.get(key)
            if port is None or (name not in well and processes.port_in_use(port)):
                others = [*configured.values(), *self._ports.values()]
                port = processes.free_port(others.__contains__)
            self._ports[name] = port
        self._start = tuple(name for name in daemons.NAMES if name not in well)
        if "slurmctld" in self._start:
            self._keep_job_ids()
        if "munged" in self._start:  # what an ended munged left would be in the way
            for name in ("munge.socket", "munge.socket.lock", "munged.pid"):
                (self.folder / "munge" / name).unlink(missing_ok=True)

    def machines(self) -> tuple[Machine, ...]:
        machine, _ = self._machine()
        return (machine,)

    def variables(self) -> Mapping[str, object]:
        user = _user()
        environment = [f"PATH={os.pathsep.join(packages.PLACES)}", "LC_ALL=C.UTF-8"]
        munge, slurm_dir = f"{self.base}/munge", f"{self.base}/slurm"
        return {
            "munge_service_manager": "private",
            "munge_packages": list(self._packages),
            "munge_daemon": packages.daemon("munged"),
            "munge_dir": munge,
            "munge_private_environment": [*environment, f"SLURM_CONF={self.slurm_conf}"],
            "munge_private_start": "munged" in self._start,
            "slurm_service_manager": "private",
            "slurm_packages": [],  # the munge role has installed them all in one go
            "slurm_bin": packages.commands(),
            "slurm_ctld_daemon": packages.daemon("slurmctld"),
            "slurm_d_daemon": packages.daemon("slurmd"),
            "slurm_user": user,
            "slurm_d_user": user,
            "slurm_dir": slurm_dir,
            "slurm_conf_file": self.slurm_conf,
            "slurm_ctld_port": self._ports["slurmctld"],
            "slurm_d_port": self._ports["slurmd"],
            "slurm_munge_socket": f"{munge}/munge.socket",
            "slurm_true": packages.find("true") or "/bin/true",
            "slurm_private_environment": environment,
            "slurm_private_start": [one for one in self._start if one != "munged"],
            "slurm_includes": [f"{slurm_dir}/job_ids.conf"],
            "slurm_conf": {
                # Loopback only: nobody else on the network sees this cluster.
                "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
                # In a container SLURM may see less of the machine than it gets.
                "SlurmdParameters": "config_overrides",
            },
        }

    def _keep_job_ids(self) -> None:
        """Write job_ids.conf: a job id above all that were ever given.

        slurmctld saves its state every five seconds. Killed in between, it comes back without the
        newest ids and gives them again, and slurmd, which still knows them, drains the node. A file
        of its own, so that slurmd need not be started anew as well.
        """
        ids = self.folder / "slurm" / "job_ids.conf"
        log = self.folder / "slurm" / "slurmctld.log"
        configured = self._configured("FirstJobId", ids) or 1
        tail = ""
        if log.exists():
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL))
                tail = file.read().decode(errors="replace")
        # "JobId=17", and "JobId=17_3(20)" for an element whose own id is 20.
        known = re.findall(r"JobId=(\d+)(?:_\S*?\((\d+)\))?", tail)
        first = max(configured, *(int(word or 0) + 1 for pair in known for word in pair), 1)
        ids.write_text(f"FirstJobId={first}\n")

    def mend(self) -> bool:
        """Resume nodes that SLURM drained because a job id came twice; whether there were any."""
        environment = {"SLURM_CONF": self.slurm_conf}
        client = Local()
        argv = [f"{packages.commands()}/sinfo", "--noheader", "--list-reasons", "--format=%E|%n"]
        listed = client.run(argv, env=environment, check=False).text.splitlines()
        nodes = [line.rpartition("|")[2] for line in listed if line.startswith("Duplicate jobid")]
        for node in nodes:
            argv = [f"{packages.commands()}/scontrol", "update", f"NodeName={node}", "State=RESUME"]
            client.run(argv, env=environment)
        return bool(nodes)

    def settle(self) -> int:
        """Give jobs back to the queue that slurmctld takes for running, but that nobody runs.

        It saves its state every five seconds; killed in between, it comes back with jobs that have
        ended since. SLURM requeues them itself, but half an hour later: only then does it ask the
        node again (slurmctld/ping_nodes.c), and their processors stay taken until that.
        """
        if not self._start:
            return 0
        environment = {"SLURM_CONF": self.slurm_conf}
        client = Local()
        drain.release_held(client, environment, f"{packages.commands()}/")
        listed = client.run(
            [f"{packages.commands()}/squeue", "--noheader", "--states=RUNNING", "--format=%A %S"],
            env=environment,
        ).text.splitlines()
        alive = {daemons.job_of(step) for step in self._running().steps}
        lost = []
        for line in listed:
            job, began = line.split()
            # A job that began only now may not have its slurmstepd yet.
            old = datetime.fromisoformat(began).timestamp() < self._created
            if old and job not in alive:
                lost.append(job)
        for job in lost:
            requeued = client.run(
                [f"{packages.commands()}/scontrol", "requeue", job], env=environment, check=False
            )
            if requeued.returncode != 0:  # an srun's or salloc's own; there is nothing to run again
                client.run([f"{packages.commands()}/scancel", job], env=environment, check=False)
        return len(lost)

    def facts(self) -> facts.Facts:
        running = self._running()
        absent = [name for name in daemons.NAMES if not running.daemons[name]]
        if absent:
            raise SetupFailed(
                f"cluster {self.cluster!r}: {', '.join(absent)} ended again right after the start"
                + (f":\n{words}" if (words := self.symptoms()) else "")
            )
        machine, _ = self._machine()
        client = Local()
        environment = {"SLURM_CONF": self.slurm_conf}
        show = client.run(
            [f"{packages.commands()}/{slurm.show_config_argv()[0]}", *slurm.show_config_argv()[1:]],
            env=environment,
        )
        config = slurm.parse_config(show.text)
        return facts.Facts(
            cluster=self.cluster,
            provider=self.name,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            slurm_conf=self.slurm_conf,
            slurm_bin=packages.commands(),
            slurm_version=config.get("SLURM_VERSION", ""),
            python=sys.executable,
            root=str(self.folder / "work"),
            max_array_size=int(config["MaxArraySize"]),
            default_time=None,
            cpus=machine.cpus,
            memory=machine.memory,
            gpus=tuple(gpu.type for gpu in machine.gpus),
            ports=dict(self._ports),
            daemons={
                name: facts.Daemon(found[0].pid, found[0].start)
                for name, found in running.daemons.items()
            },
        )

    def symptoms(self) -> str:
        told = []
        for name in daemons.NAMES:
            log = self.folder / ("munge" if name == "munged" else "slurm") / f"{name}.log"
            try:
                lines = log.read_text(errors="replace").splitlines()[-40:]
            except OSError:  # it has never run
                continue
            told += [
                f"{log}: {line}" for line in lines if re.search(r"fatal:|^\S+ \S+ Error:", line)
            ][-2:]
        return "\n".join(told)

    # -- stop -------------------------------------------------------------------------------------

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:  # noqa: ARG002
        running = self._running()
        ended = len(running.all)
        jobs = 0
        if running.daemons["slurmctld"] and running.daemons["munged"]:
            jobs = self._cancel(say)
            running = self._running()
        elif running.steps:
            say("ending jobs")
        if jobs:
            processes.wait([*running.steps, *running.jobs], _JOB_GRACE)
        running = self._running()
        # A slurmstepd goes when its job does, and starts nothing new without slurmd.
        processes.end(running.jobs, _DAEMON_GRACE if not jobs else 1.0)
        say("ending SLURM's daemons")
        # slurmctld saves its state; slurmd has none worth waiting for once its steps are gone, but
        # would wait itself until a job that it cannot find has had its KillWait.
        for name, grace in (("slurmctld", _DAEMON_GRACE), ("slurmd", 2.0), ("munged", 5.0)):
            processes.end(running.daemons[name], grace)
        rest = self._running()
        processes.kill(rest.all)
        for name in ("munge.socket", "munge.socket.lock", "munged.pid"):
            (self.folder / "munge" / name).unlink(missing_ok=True)
        for name in ("slurmctld.pid", "slurmd.pid"):
            (self.folder / "slurm" / name).unlink(missing_ok=True)
        if self._alias is not None:
            private.remove_alias(self._alias)
        return Ended(jobs, ended)

    def left(self) -> tuple[str, ...]:
        found = [f"process {one.pid} ({one.name})" for one in self._running().all]
        found += [
            f"port {port} ({key} in {self.slurm_conf})"
            for key, port in self._configured_ports().items()
            if processes.port_in_use(port)
        ]
        return tuple(found)

    def _cancel(self, say: Say) -> int:
        """Cancel every job; how many there were (what still waits of an array counts once)."""
        environment = {"SLURM_CONF": self.slurm_conf}
        client = Local()
        try:
            listed = client.run(
                [f"{packages.commands()}/squeue", "--noheader", "--format=%A"],
                env=environment,
                timeout=30,
            )
            jobs = len(listed.text.split())
            if jobs:
                say(f"cancelling {jobs} job{'' if jobs == 1 else 's'}")
                client.run([f"{packages.commands()}/scancel", f"--user={_user()}"], env=environment)
        except CommandFailed as error:
            say(f"SLURM does not answer ({error}); its jobs are ended one by one")
            return 0
        return jobs

    # -- this machine -----------------------------------------------------------------------------

    def _machine(self) -> tuple[Machine, tuple[str, ...]]:
        found = hardware.this_machine(self._devices)
        running = self._running()
        return Machine(
            name=found.hostname,
            address="127.0.0.1",
            roles=("head", "worker"),
            cpus=found.cpus,
            memory=found.memory,
            gpus=found.gpus,
            ansible={
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "ansible_remote_tmp": f"{self.ansible_home}/remote",
            },
            running=tuple(name for name in daemons.NAMES if running.daemons[name]),
        ), found.notes

    def _running(self) -> Running:
        return daemons.running(
            self.slurm_conf, self.folder / "slurm" / "slurmd.log", self.ansible_home
        )

    def _end_broken(self, running: Running) -> set[str]:
        """End every daemon that does not do its work; the names of those that do."""
        ports = self._configured_ports()
        well = set()
        for name, found in running.daemons.items():
            if name == "munged":
                works = processes.answers(f"{self.base}/munge/munge.socket")
            else:
                works = bool(found) and ports.get(_PORTS[name]) in processes.listening(found[0])
            if len(found) == 1 and works:
                well.add(name)
            elif found:
                left = processes.end(found, _DAEMON_GRACE)
                if left:
                    raise ClusterError(
                        f"cluster {self.cluster!r}: a broken {name} (pid {left[0].pid}) does not "
                        "end, not even after SIGKILL"
                    )
        return well

    def _configured_ports(self) -> dict[str, int]:
        found = {key: self._configured(key) for key in _PORTS.values()}
        return {key: port for key, port in found.items() if port is not None}

    def _configured(self, key: str, file: Path | None = None) -> int | None:
        """A number in slurm.conf (or another file) as it is now."""
        try:
            text = (file or self.folder / "slurm" / "slurm.conf").read_text(errors="replace")
        except FileNotFoundError:
            return None
        match = re.search(rf"^{key}=(\d+)$", text, re.MULTILINE)
        return int(match[1]) if match else None


def _user() -> str:
    """The calling user's name; SLURM needs one that the system knows."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise ClusterError(
            f"user {os.getuid()} has no name on {socket.gethostname()} (no line in /etc/passwd); "
            "SLURM needs one"
        ) from None
