"""What journals say, worked into rows: attempts, tasks, series. No SQL here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from clusterkit.node import journal
from clusterkit.records import TaskState


@dataclass(frozen=True, slots=True)
class JournalNews:
    """Whole lines of one journal, from byte `offset` on."""

    name: str
    offset: int
    data: bytes


class Rows(Protocol):
    """The database, as far as `Progress` sees it."""

    def journal(self, name: str) -> tuple[int, str | None]: ...

    def tasks(self, indexes: Sequence[int]) -> list[dict[str, Any]]: ...

    def put(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None: ...


class Progress:
    """Collects changes of several journals, then writes them."""

    def __init__(self, experiment: str, rows: Rows) -> None:
        self._experiment = experiment
        self._rows = rows
        self._journals: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[str, str | None, journal.Record]] = []
        self.records = 0

    def take(self, news: JournalNews) -> None:
        """Read one piece, without what another harvest has brought in meanwhile."""
        known = self._journals.get(news.name)
        offset, node = (known["offset"], known["node"]) if known else self._rows.journal(news.name)
        data = news.data[max(0, offset - news.offset) :]
        if news.offset > offset or not data:  # a gap is closed by the next harvest
            return
        slot = news.name.removesuffix(".jsonl")
        for record in journal.records(data):
            self.records += 1
            if record["k"] == "slot":
                node = str(record.get("node", ""))
            elif record["k"] in ("start", "log", "end"):
                self._events.append((slot, node, record))
        self._journals[news.name] = {
            "experiment": self._experiment,
            "name": news.name,
            "offset": offset + len(data),
            "node": node,
        }

    def write(self) -> None:
        """Work all events into rows and put them."""
        touched = sorted({event["task"] for _, _, event in self._events})
        tasks = {row["index"]: row for row in self._rows.tasks(touched)}
        attempts: dict[tuple[int, int, str], dict[str, Any]] = {}
        series: list[dict[str, Any]] = []
        for slot, node, event in self._events:
            task = tasks.get(event["task"])
            if task is None:
                continue  # a task that this experiment never had
            if event["k"] == "log":
                series.append(self._point(event))
            else:
                key = (event["task"], event["attempt"], slot)
                attempts[key] = self._attempt(attempts.get(key), event, slot, node)
            _advance(task, event, slot, node)
        # A row must have all columns, or a partial one would erase what an earlier harvest knew.
        self._rows.put("attempts", [row for row in attempts.values() if row["ended"] is None])
        self._rows.put("attempts", [row for row in attempts.values() if row["ended"] is not None])
        self._rows.put("tasks", list(tasks.values()))
        self._rows.put("series", series)
        self._rows.put("journals", list(self._journals.values()))

    def _point(self, event: journal.Record) -> dict[str, Any]:
        return {
            "experiment": self._experiment,
            "task": event["task"],
            "attempt": event["attempt"],
            "time": event["t"],
            "step": event.get("step"),
            "values": event["values"],
        }

    def _attempt(
        self, row: dict[str, Any] | None, event: journal.Record, slot: str, node: str | None
    ) -> dict[str, Any]:
        ended = event["k"] == "end"
        started = row["started"] if row else None if ended else event["t"]
        if ended and started is None:
            started = event["t"] - (event.get("s") or 0.0)
        return {
            "experiment": self._experiment,
            "task": event["task"],
            "attempt": event["attempt"],
            "slot": slot,
            "state": event["state"] if ended else TaskState.RUNNING,
            "reason": event.get("reason"),
            "exit_code": event.get("exit"),
            "seconds": event.get("s"),
            "peak_memory": event.get("mem"),
            "node": node,
            "started": started,
            "ended": event["t"] if ended else None,
        }


def _advance(task: dict[str, Any], event: journal.Record, slot: str, node: str | None) -> None:
    """What an event means for its task. Completed stays completed; later attempts win otherwise."""
    same = (task["attempt"], task["slot"]) == (event["attempt"], slot)
    if task["state"] == TaskState.COMPLETED or (not same and event["attempt"] < task["attempt"]):
        return
    if event["k"] == "start" or not same:
        task.update(
            attempt=event["attempt"], slot=slot, node=node, state=TaskState.RUNNING, reason=None,
            exit_code=None, seconds=None, peak_memory=None, result=None,
            log_start=event.get("log"), log_end=None,
        )  # fmt: skip
    if event["k"] == "log":
        task["result"] = {**(task["result"] or {}), **event["values"]}
    elif event["k"] == "end":
        task.update(
            state=TaskState.PENDING if event.get("again") else _state(event["state"]),
            reason=event.get("reason"),
            exit_code=event.get("exit"),
            seconds=event.get("s"),
            peak_memory=event.get("mem"),
            log_end=event.get("log"),
        )
        if event.get("result"):
            task["result"] = {**(task["result"] or {}), **event["result"]}


def _state(word: str) -> TaskState:
    try:
        return TaskState(word)
    except ValueError:
        return TaskState.UNKNOWN
