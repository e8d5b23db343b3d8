"""A slot's journal: JSON lines, appended, never changed. The format stands here and only here.

Every record has `k` (its kind) and `t` (seconds since 1970). The kinds:

    slot    the first line: experiment, round, slot, job, restart, node, pid, boot
    claim   {first, count}: an intention; it holds when the claim's link names this slot
    take    {name}: an intention to take over a returned range
    return  {name, first, count}: an intention to give a range back
    start   {task, attempt, log}: an attempt begins; its output begins at byte `log` of the log
    log     {task, attempt, step?, values}: written by the task itself (`clusterkit.log`)
    end     {task, attempt, state, exit, signal, reason, s, mem, log, result}: an attempt ended;
            `s` wall seconds, `mem` peak memory in bytes, `log` where its output ends
    stop    {why}: the slot ends of its own will

One `write` makes one line, so a task and its slot may append to the same file (O_APPEND; both are
on the same node). A line that cannot be read is skipped: it was cut by a full disk or a lost node.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Iterator

Record = dict[str, Any]

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def line(kind: str, fields: dict[str, Any]) -> bytes:
    """One record as it stands in the file. Raises TypeError for what JSON cannot hold."""
    return (_encode({"k": kind, **fields, "t": round(time.time(), 6)}) + "\n").encode("ascii")


def append(descriptor: int, data: bytes) -> None:
    """Write whole lines. Raises OSError, also when the disk took only a part of them."""
    written = os.write(descriptor, data)
    if written != len(data):
        # End the cut line, so that the next record is not glued to it.
        os.write(descriptor, b"\n")
        raise OSError(28, "No space left on device")


class Journal:
    """The writing end, held by a slot."""

    def __init__(self, path: str) -> None:
        """Make the journal. Raises FileExistsError when there is one: a journal has one owner."""
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._dirty = False

    def write(self, *lines: bytes) -> None:
        append(self.descriptor, b"".join(lines))
        self._dirty = True

    def sync(self) -> None:
        """Make what was written visible to other nodes (NFS) and safe from a crash."""
        if self._dirty:
            os.fsync(self.descriptor)
            self._dirty = False


def records(data: bytes) -> Iterator[Record]:
    """The records of whole lines, in order; lines that are none are skipped."""
    for text in data.splitlines():
        # A full disk may have cut a line and left no room to end it; the next record is whole.
        start = 0
        while start >= 0:
            try:
                record = json.loads(text[start:])
            except ValueError:
                start = text.find(b'{"k":"', start + 1)
                continue
            if isinstance(record, dict) and isinstance(record.get("k"), str):
                yield record
            break


def read(path: str) -> list[Record]:
    """All records of one journal, a last unfinished line left out."""
    with open(path, "rb") as file:
        data = file.read()
    return list(records(data[: data.rfind(b"\n") + 1]))
