"""Small experiments for tests of the store and of what reads it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from clusterkit.node import journal
from clusterkit.records import (
    Environment,
    Experiment,
    Grid,
    Point,
    Snapshot,
    Submission,
    TaskRow,
    TaskState,
)
from clusterkit.store import JournalNews, Store


def experiment(identity: str = "0a1b2c3d", **more: Any) -> Experiment:
    fields: dict[str, Any] = {
        "id": identity,
        "name": "train",
        "message": "why?",
        "cluster": "local",
        "created": datetime.fromtimestamp(time.time(), UTC),
        "script": "train.py",
        "tasks": 3,
        "root": f"/c/experiments/{identity}",
        "lib": "/c/lib/1234",
        "axes": ("lr",),
        "snapshot": "ab" * 32,
        "commit": None,
        "branch": None,
    }
    return Experiment(**{**fields, **more})


def submission(identity: str = "0a1b2c3d", **more: Any) -> Submission:
    fields: dict[str, Any] = {
        "experiment": identity, "round": 0, "chunk": 0, "job_name": f"train-{identity}-0.0",
        "job_id": None, "offset": 0, "size": 3,
    }  # fmt: skip
    return Submission(**{**fields, **more})


def add(store: Store, identity: str = "0a1b2c3d", tasks: int = 3, **more: Any) -> Experiment:
    made = experiment(identity, tasks=tasks, **more)
    points = tuple(Point(f"{n:064x}", {"lr": n / 10}) for n in range(tasks))
    store.add_experiment(
        made,
        grid=Grid(points, ("lr",), text="params: {}"),
        snapshot=Snapshot("ab" * 32, "train.py", (("train.py", 10),)),
        environment=Environment("e", "/usr/bin/python3", "3.11.2", {"numpy": "2.0"}),
        plan={"run": None, "throttle": 3},
        submissions=[submission(identity, size=tasks)],
    )
    return made


def task(index: int = 0, **more: Any) -> TaskRow:
    fields: dict[str, Any] = {
        "index": index, "point": f"{index:064x}", "params": {"lr": 0.1},
        "state": TaskState.COMPLETED, "attempt": 1,
    }  # fmt: skip
    return TaskRow(**{**fields, **more})


def lines(*records: tuple[str, Mapping[str, Any]]) -> bytes:
    return b"".join(journal.line(kind, dict(fields)) for kind, fields in records)


HEADER = ("slot", {"node": "node1"})


def start(number: int, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return "start", {"position": number, "task": number, "attempt": attempt, "log": 0}


def log(number: int, attempt: int = 1, **values: Any) -> tuple[str, dict[str, Any]]:
    return "log", {"task": number, "attempt": attempt, "values": values}


def end(
    number: int, attempt: int = 1, state: str = "COMPLETED", **more: Any
) -> tuple[str, dict[str, Any]]:
    fields = {
        "position": number, "task": number, "attempt": attempt, "state": state, "exit": 0,
        "signal": None, "reason": None, "s": 1.5, "mem": 1 << 20, "log": 10,
    }  # fmt: skip
    return "end", {**fields, **more}


def news(name: str, data: bytes, offset: int = 0) -> JournalNews:
    return JournalNews(f"{name}.jsonl", offset, data)


def states(store: Store, identity: str = "0a1b2c3d") -> Sequence[TaskState]:
    return [row.state for row in store.tasks(identity)]
