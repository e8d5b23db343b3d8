"""One computer with a cluster on a cloud, against a double: its commands, also in processes to
kill. What is a cloud's own is in `ec2_cluster`, `gce_cluster`.

There are no hosts behind the double, so `start` ends, as "started", where it would reach machines.
Run as a script, a cloud's module forks a process for each line of JSON that it reads: Python, the
SDK and its models are loaded once, and a process begins at once.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import pytest
import yaml
from doubles.faults import Counts, Effect, every

from clusterkit.cluster import access, ending, lifecycle
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.providers import Plan
from clusterkit.cluster.watch import Nobody
from clusterkit.errors import ClusterkitError
from clusterkit.paths import Home

NAME = "lab"
#: Of the settings of every cloud: a head, and two spot workers that belong together.
MACHINES = ["lab-head", "lab-cpu-1", "lab-cpu-2"]


class Reached(Exception):
    """The cloud's part of `start` is over: the machines would be reached now."""


def without_hosts() -> None:
    """From now on in this process no machine is reached."""

    def look(*_: object) -> None:
        raise Reached

    lifecycle._Remote._look = look  # type: ignore[method-assign, assignment]


def free_port() -> int:
    """All doubles have the same, one after the other: clients are made for it once.

    None of those that the system gives to anybody who asks for any: others test at the same time.
    """
    for _ in range(100):
        found = random.randint(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", found)):
            return found
    raise AssertionError("no port is free")


class Said(Nobody):
    """What a command told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Computer:
    """One computer's data folder and settings. Each command is as one that is typed in."""

    SETTINGS: ClassVar[Mapping[str, Any]]

    def __init__(self, root: Path, name: str = NAME, **more: Any) -> None:
        self.root, self.name = root, name
        self.home = Home(root / "data", root / "clusterkit.yaml")
        self.said: list[str] = []
        self.plans: list[Plan] = []
        self.settings = copy.deepcopy(dict(self.SETTINGS))
        self.write(**more)

    def write(self, workers: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Change the settings; those of `workers.cpu` by `workers`."""
        self.settings |= more
        self.settings["workers"]["cpu"] |= workers or {}
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "clusterkit.yaml").write_text(
            yaml.safe_dump({"clusters": {self.name: self.settings}})
        )

    def with_prices(self, prices: Path) -> Self:
        """They are known already."""
        shutil.copytree(prices, self.home.root / "prices")
        return self

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

    def clusterkit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command itself."""
        environment = os.environ | {
            "CLUSTERKIT_HOME": str(self.home.root), "CLUSTERKIT_CONFIG": str(self.home.config),
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "clusterkit", *words],
            capture_output=True, text=True, timeout=60, cwd=self.root, env=environment,
        )  # fmt: skip

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

    `at(60, act)` does something once so many seconds have passed. `client` is the cloud's door.
    """

    client: ClassVar[type]

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
        begin = self.client.__init__  # type: ignore[misc]

        def patient(client: Any, *args: Any, **more: Any) -> None:
            begin(client, *args, **{**more, "pause": self.pause})

        monkeypatch.setattr(self.client, "__init__", patient)
        monkeypatch.setattr(Clock, "seconds", lambda _: self.seconds)
        monkeypatch.setattr(Clock, "pause", lambda _, seconds, over: self.pause(seconds))
        return self


def then(fault: Any, act: Callable[[], object]) -> None:
    """Do something when a fault strikes for the first time."""
    error = fault.error

    def struck(*said: str) -> Any:
        act()
        return error(*said)

    fault.error = struck


# -- killed ----------------------------------------------------------------------------------------


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
    """A process that forks others. One command at a time. `script` is a cloud's module.

    Variables whose names begin with one of `without` are not inherited.
    """

    def __init__(
        self, script: Path, environment: Mapping[str, str], without: tuple[str, ...]
    ) -> None:
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(without)}
        self._environment = dict(environment)
        self._server = subprocess.Popen(
            [sys.executable, script],
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

    def run(self, computer: Computer, command: str) -> Process:
        out = computer.root / "out"
        order = {"root": str(computer.root), "name": computer.name, "command": command}
        order |= {"out": str(out)}
        environment = {**self._environment, "HOME": str(computer.root)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({**order, "environment": environment}) + "\n")
        self._server.stdin.flush()
        made = Process(int(self._server.stdout.readline()), out)
        threading.Thread(target=self._await, args=(made, self._server.stdout)).start()
        return made

    @staticmethod
    def _await(process: Process, answers: IO[str]) -> None:
        process.status = int(answers.readline())
        process.over.set()


def serve(
    computer: type[Computer], waiting: type[Waiting], warm: Callable[[], None], **nowhere: Any
) -> None:
    """Fork for each line of stdin. With the settings `nowhere` no cloud can be reached."""
    root = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ClusterkitError):
        waiting().install(patch)
        computer(root, **nowhere).start()  # all is imported once, for all forks
    shutil.rmtree(root)
    warm()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order, computer, waiting)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class _Set:
    """What a fork changes in itself."""

    setattr = staticmethod(setattr)


def _child(order: Mapping[str, Any], kind: type[Computer], waiting: type[Waiting]) -> None:
    code = 3
    try:
        out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(order["environment"])
        root = Path(order["root"])
        computer = kind.__new__(kind)
        computer.root, computer.name, computer.plans = root, order["name"], []
        computer.home = Home(root / "data", root / "clusterkit.yaml")
        waiting().install(_Set)  # as the test waits
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


class Kills:
    """Commands of a computer that are killed, each time in the world as it was before.

    `remember` keeps the double's things as they are, and answers what brings them back; `things`
    tells of those that are there what is not random. `looks` says that a call changes nothing.
    `before` makes, anew for each command, what says which calls are worth a kill before them.
    """

    def __init__(
        self,
        double: Any,
        forks: Forks,
        computer: Computer,
        *,
        remember: Callable[[Any], Callable[[], None]],
        things: Callable[[Any], Iterable[tuple[object, ...]]],
        looks: Callable[[str], bool],
        before: Callable[[], Counts] = lambda: every,
    ) -> None:
        self._double, self._forks, self._computer = double, forks, computer
        self._remember, self._things = remember, things
        self._counts: Mapping[Effect, Callable[[], Counts]] = {
            "before": before,
            "after": lambda: lambda action: not looks(action),
        }

    def at(self, command: str, at: int, effect: Effect) -> str | None:
        """Kill the command before its `at`-th call, or after its `at`-th change; that call's name,
        None when there were fewer.
        """
        hold = self._double.hold(at, effect, self._counts[effect]())
        process = self._forks.run(self._computer, command)
        while not hold.reached.wait(0.005) and not process.over.is_set():
            pass
        if process.over.is_set():
            self._double.holds.remove(hold)
            assert process.status == 0, process.words
            return None
        process.kill()
        hold.release(drop=True)
        self._double.holds.remove(hold)
        return str(hold.action)

    def points(self, command: str, seen: list[str]) -> Iterator[str]:
        """Kill `command` before each of its calls, and after each that changes something.

        All begin with the world as it is now. Yields points as "before 3: ec2:RunInstances" where
        the world is as it was at none of those before; `seen` gets all.
        """
        back, known = self.keep(), set()
        for effect in self._counts:
            for at in itertools.count(1):
                action = self.at(command, at, effect)
                if action is None:
                    back()
                    break
                point = f"{effect} {at}: {action}"
                seen.append(point)
                state = self._state()
                if state not in known:
                    known.add(state)
                    yield point
                back()

    def keep(self, name: str = "kept") -> Callable[[], None]:
        """Remember the double's things and the computer's folder; what brings them back."""
        computer = self._computer
        things_back = self._remember(self._double)
        folder = computer.root / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(computer.home.root, folder)

        def back() -> None:
            things_back()
            shutil.rmtree(computer.home.root)
            shutil.copytree(folder, computer.home.root)

        return back

    def _state(self) -> str:
        """What is there, in the double and on disk, but for what is random."""
        things = Counter(self._things(self._double))
        root = self._computer.home.root
        files = Counter(
            re.sub("[0-9a-f]{8,}", "*", str(file.relative_to(root)))
            + (
                " heard"
                if "launches" in str(file) and '"ids": null' not in file.read_text()
                else ""
            )
            for file in root.rglob("*")
            if file.is_file()
        )
        return str((sorted(map(str, things.items())), sorted(files.items())))


def changes(killed: list[str]) -> set[str]:
    """The calls that were killed after they had taken effect, their answers unheard."""
    return {one.partition(": ")[2] for one in killed if one.startswith("after")}
