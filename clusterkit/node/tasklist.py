"""The list of an experiment's tasks, and a round's choice of them; reads only what is asked for."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from clusterkit.node.claims import Range


class Queue:
    """The round's list of tasks; reads only what is asked for."""

    def __init__(self, root: str, number: int) -> None:
        self._tasks = os.open(os.path.join(root, "tasks"), os.O_RDONLY)
        self._index = os.open(os.path.join(root, "tasks.idx"), os.O_RDONLY)
        path = os.path.join(root, "rounds", str(number), "queue")
        self._queue = os.open(path, os.O_RDONLY) if number else None

    def read(self, part: Range) -> "list[tuple[dict[str, Any], int]]":
        """(task line, attempts in earlier rounds) of each position."""
        if self._queue is None:
            return [(task, 0) for task in self._lines(part.first, part.size)]
        pairs = struct.iter_unpack("<II", os.pread(self._queue, 8 * part.size, 8 * part.first))
        return [(self._lines(task, 1)[0], attempts) for task, attempts in pairs]

    def _lines(self, first: int, count: int) -> "list[dict[str, Any]]":
        bounds = struct.unpack(f"<{count + 1}Q", os.pread(self._index, 8 * (count + 1), 8 * first))
        data = os.pread(self._tasks, bounds[-1] - bounds[0], bounds[0])
        return [json.loads(line) for line in data.splitlines()]
