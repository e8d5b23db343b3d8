"""Run one playbook with ansible-runner: tell its plays and tasks, keep its log, judge its end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterkit import paths
from clusterkit.cluster import processes
from clusterkit.errors import SetupFailed

#: What the line begins with in which a role's script says what failed and what to do.
_WORDS = "clusterkit: "
#: Runs that are kept, the newest ones.
_KEPT = 20
#: Machines that a task is run on at the same time.
_FORKS = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """A playbook that succeeded. `changed` counts tasks over all hosts."""

    changed: int
    seconds: float
    log: Path


def run(
    playbook: str,
    inventory: Mapping[str, object],
    *,
    folder: Path,
    home: str,
    on_play: Callable[[str], None] = lambda _: None,
    on_task: Callable[[str, str], None] = lambda _host, _task: None,
    check: bool = False,
    timeout: float = 0,
) -> Outcome:
    """Run `playbook` over `inventory`; everything about the run is kept in the new `folder`.

    `home` is Ansible's folder for temporary files; as ANSIBLE_HOME it also marks the processes of
    this run. `on_play` is called with each play's name as it begins, `on_task` with a host and what
    it does. With `check` nothing is changed, and `Outcome.changed` counts what would be. `timeout`
    in seconds, 0: none. Raises SetupFailed with the failed tasks' own words.
    """
    import ansible_runner

    failures: list[dict[str, Any]] = []
    plays: list[Any] = []
    changed = 0

    def handle(event: dict[str, Any]) -> bool:
        nonlocal changed
        kind, data = event.get("event"), event.get("event_data") or {}
        if kind == "playbook_on_task_start" and data.get("play") not in plays:
            # Not at the play's own start: one without a machine has none of its tasks started.
            plays.append(data.get("play"))
            on_play(str(data.get("play")))
        elif kind == "runner_on_start":
            on_task(str(data.get("host")), str(data.get("task")))
        elif kind == "runner_on_ok" and (data.get("res") or {}).get("changed"):
            changed += 1
        elif kind in ("runner_on_failed", "runner_on_unreachable") and not data.get(
            "ignore_errors"
        ):
            failures.append(data)
        return True

    folder.mkdir(parents=True, mode=0o700)
    _prune(folder.parent)
    began = time.monotonic()
    with _own_signals():
        runner = ansible_runner.run(
            private_data_dir=str(folder),
            project_dir=str(paths.playbooks()),
            playbook=playbook,
            inventory=dict(inventory),
            ident="log",
            quiet=True,
            forks=_FORKS,
            cmdline="--check" if check else None,
            settings={"suppress_ansible_output": True, "job_timeout": int(timeout)},
            event_handler=handle,
            envvars={
                "ANSIBLE_CONFIG": str(paths.playbooks() / "ansible.cfg"),
                "ANSIBLE_HOME": home,
                # Ansible refuses any locale that is not UTF-8.
                "LC_ALL": "C.UTF-8",
                # ansible-playbook lies beside this Python, which need not be on PATH.
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
            },
        )
    log = folder / "artifacts" / "log" / "stdout"
    if runner.status == "canceled":
        raise KeyboardInterrupt
    if runner.status == "timeout":
        raise SetupFailed(f"no end after {timeout:g} s (`timeouts: setup:`)\nLog: {log}")
    if runner.status != "successful":
        told = reasons(failures) or [_last_words(log, runner.status)]
        raise SetupFailed("\n".join(told) + f"\nLog: {log}")
    return Outcome(changed, time.monotonic() - began, log)


def end_leftovers(home: str) -> None:
    """End the processes of runs with this `home` whose clusterkit was killed.

    To be called while holding the cluster. What they had begun on a machine ends there by itself.
    """
    spared = processes.ancestors_and_self()
    processes.kill(
        one
        for one in processes.mine()
        if one.pid not in spared and processes.environment(one).get("ANSIBLE_HOME") == home
    )


def reasons(failures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Failed tasks in words; what several hosts say alike is said once."""
    hosts: dict[str, list[str]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for data in failures:
        key = failure({**data, "host": ""})
        hosts.setdefault(key, []).append(str(data.get("host")))
        first.setdefault(key, data)
    return [failure({**data, "host": ", ".join(hosts[key])}) for key, data in first.items()]


def failure(data: Mapping[str, Any]) -> str:
    """A failed task in words, from the `event_data` of its event."""
    result = data.get("res") or {}
    if not isinstance(result, Mapping):
        return str(result)
    words = str(result.get("msg") or "").strip()
    if data.get("task_action") in ("ansible.builtin.assert", "assert", "ansible.builtin.fail"):
        return words  # written for the user
    told = [
        line.removeprefix(_WORDS)
        for stream in ("stdout", "stderr")
        for line in str(result.get(stream) or "").splitlines()
        if line.startswith(_WORDS)
    ]
    if told:  # written for the user, by a role's script
        return told[-1].strip()
    if result.get("censored"):
        words = "its output is kept secret"
    if words == "non-zero return code":  # says less than the command's own words below
        words = ""
    for stream in ("stderr", "stdout", "module_stderr"):
        text = str(result.get(stream) or "").strip()
        if text and text not in words:
            words += f"\n  {text[-1500:]}"
    return f"task {data.get('task')!r} failed on {data.get('host')}: {words or 'no reason given'}"


def _last_words(log: Path, status: str) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return "\n".join([f"ansible-playbook ended as {status!r}:", *lines[-15:]])


def _prune(runs: Path) -> None:
    """Remove the oldest run folders; their names begin with the moment they were made."""
    for old in sorted(path for path in runs.iterdir() if path.is_dir())[:-_KEPT]:
        shutil.rmtree(old)


@contextmanager
def _own_signals() -> Iterator[None]:
    """ansible-runner takes over SIGINT and SIGTERM for good; give them back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
