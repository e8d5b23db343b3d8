"""An experiment's folder as a cluster has it, and slots over it without any scheduler."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterkit.node import journal

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "clusterkit" / "node" / "__main__.py"


def wait_for(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    """The condition's first true value; an AssertionError when there is none in time."""
    until = time.monotonic() + seconds
    pause = 0.01
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(pause)
        pause = min(0.1, 1.3 * pause)  # asking takes from those that are waited for
    return found


@dataclass
class SlotExperiment:
    root: Path
    argvs: Sequence[Sequence[str]]
    params: Sequence[Mapping[str, Any]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    round: int = 0
    queue: Sequence[tuple[int, int]] = ()

    def __post_init__(self) -> None:
        (self.root / "code").mkdir(parents=True)
        (self.root / "slots").mkdir()
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for name in ("scancel", "scontrol"):
            program = self.bin / name
            program.write_text(f'#!/bin/sh\necho {name} "$@" >> "{self.root}/asked"\n')
            program.chmod(0o755)
        for name, text in self.scripts.items():
            file = self.root / "code" / name
            file.write_text(text)
            file.chmod(0o755)
        settings = {
            "experiment": "0a1b2c3d",
            "python": sys.executable,
            "lib": str(REPOSITORY),
            "cwd": ".",
            "warm": [],
            "min_slot_time": 60.0,
            "max_attempts": 3,
            "log_limit": 1 << 20,
            **self.settings,
        }
        (self.root / "run.json").write_text(json.dumps(settings))
        lines, offsets = [], [0]
        for number, argv in enumerate(self.argvs):
            params = self.params[number] if self.params else {"i": number}
            task = {"task": number, "point": f"{number:064x}", "params": params, "argv": argv}
            lines.append(json.dumps(task).encode() + b"\n")
            offsets.append(offsets[-1] + len(lines[-1]))
        (self.root / "tasks").write_bytes(b"".join(lines))
        (self.root / "tasks.idx").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))
        if self.queue:
            self.add_round(self.round, self.queue)

    def add_round(self, number: int, queue: Sequence[tuple[int, int]]) -> None:
        folder = self.root / "rounds" / str(number)
        folder.mkdir(parents=True)
        (folder / "queue").write_bytes(b"".join(struct.pack("<II", *pair) for pair in queue))
        self.round, self.queue = number, queue

    def start(self, index: int = 0, **arguments: Any) -> subprocess.Popen[bytes]:
        """The program that the batch script starts, as element `index` of one array."""
        total = len(self.queue) if self.round else len(self.argvs)
        given = {
            "round": self.round, "total": total, "workers": 1, "pack": True,
            "time_limit": 0, "grace": 0, **arguments,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-I", "-S", PROGRAM, "slot", self.root, json.dumps(given), "0",
             str(total)],
            env={
                **os.environ,
                "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
                "SLURM_ARRAY_TASK_ID": str(index),
                "SLURM_ARRAY_JOB_ID": "77",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, index: int = 0, **arguments: Any) -> str:
        """One slot to its end; what it printed (normally nothing). Its exit code must be 0."""
        process = self.start(index, **arguments)
        words, _ = process.communicate(timeout=180)
        assert process.returncode == 0, words.decode()
        return words.decode()

    def records(self, kind: str | None = None) -> list[journal.Record]:
        found: list[journal.Record] = []
        for path in sorted((self.root / "slots").glob("*.jsonl")):
            found += [{**r, "slot_name": path.stem} for r in journal.read(str(path))]
        return [r for r in found if kind is None or r["k"] == kind]

    def ends(self) -> dict[int, journal.Record]:
        """task -> its one end record."""
        ends = [record for record in self.records("end") if not record.get("again")]
        assert len({record["task"] for record in ends}) == len(ends), "a task ended twice"
        return {record["task"]: record for record in ends}

    def log(self) -> str:
        paths = sorted((self.root / "slots").glob("*.log"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def asked(self) -> list[str]:
        """What the scheduler was asked for."""
        file = self.root / "asked"
        return file.read_text().splitlines() if file.exists() else []
