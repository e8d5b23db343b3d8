"""Send what is new: journal lines to a harvest, a log's bytes to a reader.

Output is a row of frames: a JSON line {"name", "offset", "size"} and then `size` bytes of that
journal, always whole lines. {"mark": true} closes a pass over all journals. With `follow`, passes
go on until the reader closes this program's standard input.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import BinaryIO, Iterator

from clusterkit.node import journal

#: At most so much of one journal in one frame (bytes), so that memory stays bounded.
CHUNK = 8 << 20
#: Shared file systems tell nobody of changes, so sizes are looked at this often, less often while
#: nothing happens (seconds).
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
#: While journals keep growing they are sent this far apart (seconds), so that whoever harvests
#: takes little from whoever works; once they rest, at once.
BETWEEN_SENDS = 0.5
#: A mark is sent at least so often (seconds), so that the reader can look at other things too.
HEARTBEAT = 2.0


def send(root: str, offsets: dict[str, int], follow: bool, out: BinaryIO) -> None:
    """Send all journal lines behind `offsets` (journal name -> bytes known already)."""
    slots = os.path.join(root, "slots")
    pause = FIRST_PAUSE
    sent = time.monotonic()
    before: dict[str, int] = {}
    while True:
        sizes = _sizes(slots)
        grew, before = sizes != before, sizes
        news = any(size > offsets.get(name, 0) for name, size in sizes.items())
        since = time.monotonic() - sent
        if not follow or since >= HEARTBEAT or (news and (not grew or since >= BETWEEN_SENDS)):
            for name, data in _news(slots, sizes, offsets):
                header = {"name": name, "offset": offsets.get(name, 0), "size": len(data)}
                out.write(json.dumps(header).encode() + b"\n" + data)
                offsets[name] = offsets.get(name, 0) + len(data)
            out.write(b'{"mark": true}\n')
            out.flush()
            sent = time.monotonic()
        if not follow:
            return
        pause = FIRST_PAUSE if news or grew else min(LONGEST_PAUSE, pause * 1.5)
        if _left(pause):
            return


def _sizes(slots: str) -> dict[str, int]:
    with os.scandir(slots) as entries:
        return {e.name: e.stat().st_size for e in entries if e.name.endswith(".jsonl")}


def _news(
    slots: str, sizes: dict[str, int], offsets: dict[str, int]
) -> Iterator[tuple[str, bytes]]:
    for name, size in sorted(sizes.items()):
        while offsets.get(name, 0) < size:
            with open(os.path.join(slots, name), "rb") as file:
                file.seek(offsets.get(name, 0))
                data = file.read(CHUNK)
                if b"\n" not in data:
                    data += file.readline()  # one long line
            whole = data[: data.rfind(b"\n") + 1]
            if not whole:
                break
            yield name, whole


def print_log(root: str, slot: str, task: int, attempt: int, follow: bool, out: BinaryIO) -> None:
    """Print one attempt's output; with `follow`, until the attempt has ended.

    Raises LookupError when the slot's journal has no such attempt.
    """
    path = os.path.join(root, "slots", slot)
    pause = FIRST_PAUSE
    begin, end = _part(f"{path}.jsonl", task, attempt)
    if begin is None:
        raise LookupError(f"slot {slot} has not started attempt {attempt} of task {task}")
    with open(f"{path}.log", "rb") as log:
        position = begin
        while True:
            log.seek(position)
            data = log.read(CHUNK if end is None else min(CHUNK, end - position))
            out.write(data)
            out.flush()
            position += len(data)
            if end is not None and position >= end:
                return
            if data:
                pause = FIRST_PAUSE
                continue
            if not follow or end is not None:
                return
            pause = min(LONGEST_PAUSE, pause * 1.5)
            if _left(pause):
                return
            _, end = _part(f"{path}.jsonl", task, attempt)


def _part(path: str, task: int, attempt: int) -> tuple[int | None, int | None]:
    begin = end = None
    for record in journal.read(path):
        if record.get("task") == task and record.get("attempt") == attempt:
            if record["k"] == "start":
                begin = record["log"]
            elif record["k"] == "end":
                end = record.get("log")
    return begin, end


def _left(pause: float) -> bool:
    """Wait; whether the reader has closed our standard input meanwhile."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], pause)
    return bool(ready) and not os.read(sys.stdin.fileno(), 4096)
