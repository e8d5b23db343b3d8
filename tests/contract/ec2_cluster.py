"""One computer with a cluster on EC2, against the double: its commands, also in processes to kill.

There are no hosts behind the double, so `start` ends, as "started", where it would reach machines.
Run as a script, this file forks a process for each line of JSON that it reads: Python, boto3 and
the model of EC2 are loaded once, and a process begins at once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Self

import botocore.hooks
import botocore.session
import yaml

from clusterkit.cluster import access, ending, lifecycle
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.providers import Plan
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.watch import Nobody
from clusterkit.errors import ClusterkitError
from clusterkit.paths import Home

NAME = "lab"
#: A head, and two spot workers that belong together: what it needs is made by every kind of call.
SETTINGS: Mapping[str, Any] = {
    "provider": "ec2",
    "region": "us-east-1",
    "connect": "private",
    "own_address": "10.9.8.7",
    "saved_image": "off",
    "head": {"types": ["t3.medium"], "zones": ["us-east-1a"]},
    "workers": {
        "cpu": {
            "count": 2,
            "types": ["c5.large"],
            "zones": ["us-east-1a", "us-east-1b"],
            "market": "spot",
            "placement": True,
        }
    },
}
MACHINES = ["lab-head", "lab-cpu-1", "lab-cpu-2"]


#: What a client of botocore depends on.
_WHO = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")


class Reached(Exception):
    """The cloud's part of `start` is over: the machines would be reached now."""


def without_hosts() -> None:
    """From now on in this process: no machine is reached; AWS's models are read once."""

    def look(*_: object) -> None:
        raise Reached

    lifecycle._Remote._look = look  # type: ignore[method-assign, assignment]
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    botocore.hooks.accepts_kwargs = functools.cache(botocore.hooks.accepts_kwargs)
    make, lock = Client._client, threading.Lock()
    made: dict[tuple[str | None, ...], Any] = {}

    def client(self: Client, service: str, region: str) -> Any:
        key = (service, region, *(os.environ.get(name) for name in _WHO))
        with lock:
            if key not in made:
                made[key] = make(self, service, region)
            return made[key]

    Client._client = client  # type: ignore[method-assign]


class Said(Nobody):
    """What a command told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Computer:
    """One computer's data folder and settings. Each command is as one that is typed in."""

    def __init__(self, root: Path, name: str = NAME, **more: Any) -> None:
        self.root, self.name = root, name
        self.home = Home(root / "data", root / "clusterkit.yaml")
        self.said: list[str] = []
        self.plans: list[Plan] = []
        self.settings = copy.deepcopy(dict(SETTINGS))
        self.write(**more)

    def write(self, workers: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Change the settings; those of `workers.cpu` by `workers`."""
        self.settings |= more
        self.settings["workers"]["cpu"] |= workers or {}
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "clusterkit.yaml").write_text(
            yaml.safe_dump({"clusters": {self.name: self.settings}})
        )

    @property
    def folder(self) -> Path:
        return self.home.cluster(self.name)

    @property
    def id(self) -> str:
        return access.read_id(self.folder)

    def provider(self) -> CloudProvider:
        _, made = lifecycle.made(self.home, self.name, keep=False)
        assert isinstance(made, CloudProvider)
        return made

    def plan(self) -> Plan:
        return lifecycle.plan(self.home, self.name)

    def start(self, **more: Any) -> list[str]:
        """What it told."""
        more = {"agree": self.plans.append, **more}
        return self._do(
            lambda watch: lifecycle.start(self.home.prepared(), self.name, watch=watch, **more)
        )

    def pause(self) -> list[str]:
        return self._do(lambda watch: ending.pause(self.home, self.name, watch=watch))

    def stop(self) -> list[str]:
        return self._do(lambda watch: ending.stop(self.home, self.name, watch=watch))

    def _do(self, command: Callable[[Said], object]) -> list[str]:
        watch = Said()
        try:
            with contextlib.suppress(Reached):
                command(watch)
        finally:
            self.said = watch.lines
        return watch.lines


class Waiting:
    """Time that passes only while somebody waits: the product's pauses take none.

    `at(60, act)` does something once so many seconds have passed.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._due: list[tuple[float, Callable[[], object]]] = []

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        self._due.append((seconds, act))

    def pause(self, seconds: float, *_: object) -> None:
        with self._lock:
            self.seconds += seconds
            due = [one for one in self._due if one[0] <= self.seconds]
            self._due = [one for one in self._due if one not in due]
        for one in due:
            one[1]()

    def install(self, monkeypatch: Any) -> Self:
        begin = Client.__init__

        def patient(client: Client, *args: Any, **more: Any) -> None:
            begin(client, *args, **{**more, "pause": self.pause})

        monkeypatch.setattr(Client, "__init__", patient)
        monkeypatch.setattr(Clock, "seconds", lambda _: self.seconds)
        monkeypatch.setattr(Clock, "pause", lambda _, seconds, over: self.pause(seconds))
        return self


class Process:
    """A command of a computer in a process of its own, which can be killed."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid = pid
        self.over = threading.Event()
        self.status = 0
        self._out = out

    @property
    def words(self) -> str:
        """What it said last: its error."""
        return self._out.read_text()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.over.wait(30)

    def wait(self) -> int:
        assert self.over.wait(60), "it does not end"
        return self.status


class Forks:
    """A process that forks others. One command at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
        inherited = {key: value for key, value in os.environ.items() if key[:4] != "AWS_"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited, **environment, "PYTHONPATH": path},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def run(self, computer: Computer, command: str, environment: Mapping[str, str]) -> Process:
        out = computer.root / "out"
        order = {"root": str(computer.root), "name": computer.name, "command": command}
        order |= {"out": str(out)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({**order, "environment": dict(environment)}) + "\n")
        self._server.stdin.flush()
        made = Process(int(self._server.stdout.readline()), out)
        threading.Thread(target=self._await, args=(made, self._server.stdout)).start()
        return made

    @staticmethod
    def _await(process: Process, answers: IO[str]) -> None:
        process.status = int(answers.readline())
        process.over.set()


def _serve() -> None:
    without_hosts()
    root = Path(tempfile.mkdtemp())
    with contextlib.suppress(ClusterkitError):  # all is imported once, for all forks
        Computer(root, region=None, profile="none").start()
    shutil.rmtree(root)
    client = Client("us-east-1")
    for service in ("ec2", "sts", "ssm", "pricing", "service-quotas"):
        client._client(service, "us-east-1")
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class _Set:
    """What a fork changes in itself."""

    setattr = staticmethod(setattr)


def _child(order: Mapping[str, Any]) -> None:
    code = 3
    try:
        out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(order["environment"])
        root = Path(order["root"])
        computer = Computer.__new__(Computer)
        computer.root, computer.name, computer.plans = root, order["name"], []
        computer.home = Home(root / "data", root / "clusterkit.yaml")
        Waiting().install(_Set)  # as the test waits
        getattr(computer, order["command"])()
        code = 0
    except ClusterkitError as error:
        print(error)
        code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def keep(aws: Any, computer: Computer, name: str = "kept") -> Callable[[], None]:
    """Remember the double's things and the computer's folder as they are; what brings them back."""
    world = aws.world()
    with aws.lock:
        world.settle()
        kept = copy.deepcopy(world.things)
        tokens, freed = copy.deepcopy(world.tokens), dict(world.freed)
    folder = computer.root / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(computer.home.root, folder)

    def back() -> None:
        with aws.lock:
            world.things = copy.deepcopy(kept)
            world.tokens, world.freed = copy.deepcopy(tokens), dict(freed)
        shutil.rmtree(computer.home.root)
        shutil.copytree(folder, computer.home.root)

    return back


if __name__ == "__main__":
    _serve()
