"""The worker of a slot: claims ranges of tasks, runs them, journals what became of each."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from clusterkit.node import attempt, claims, journal, memory, results, strays
from clusterkit.node.claims import Range
from clusterkit.node.tasklist import Queue

#: A claim should be about this much work (seconds), so that claiming costs nothing beside it.
BATCH_SECONDS = 0.5
#: When a task takes longer than this (seconds), what was claimed behind it is given back.
GIVE_BACK_AFTER = 2.0
#: A task that was told to end (SIGTERM) is killed so long (seconds) after; SLURM itself kills the
#: whole job after its KillWait, 30 s unless configured, and then nobody could write down why.
KILL_AFTER = 8.0


#: What a slot is told with that it shall end.
TOLD_TO_END = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Settings(NamedTuple):
    """`run.json`: what is the same for all slots of an experiment."""

    experiment: str
    python: str  # interpreter of the tasks
    lib: str  # folder that holds the shipped `clusterkit`
    cwd: str  # folder inside code/ that the tasks run in
    warm: "list[str]"  # modules to import once a slot
    min_slot_time: float  # seconds after which a slot makes room for the next element
    max_attempts: int  # in one round, when slots die or time runs out
    log_limit: int  # bytes of output kept of one task
    path: "tuple[str, ...]" = ()  # folders inside code/ that Python shall find modules in


@dataclass(frozen=True)
class Element:
    """Which element this is: the batch script's arguments."""

    root: str
    round: int
    total: int  # positions in this round's queue
    number: int  # this element's number over all arrays of the round
    last: int  # the highest number in this array
    index: int  # this element's own index in its array
    workers: int  # how many slots are expected to work at once
    pack: bool
    time_limit: float  # seconds; 0: unlimited or unknown
    grace: float  # seconds between SIGUSR1 and the end of the time limit


class Worker:
    """What the forked process does."""

    def __init__(self, settings: Settings, element: Element, begun: float) -> None:
        """`begun`: when the element started (time.monotonic)."""
        self._settings = settings
        self._element = element
        self._parent = os.getppid()
        self._begun = begun
        self._ending: Optional[str] = None  # state that an attempt cut short now gets
        self._ran = 0
        self._busy = 0.0  # seconds spent in tasks
        self._longest = 0.0
        self._warm: Any = None
        self._kill_at: Optional[float] = None  # when a task that was told to end is killed
        self._current: Any = None  # the running process, for signals
        self._kills = memory.kills()
        self._spare: dict[str, str] = {}  # "out", "checkpoints" -> an empty folder to use again
        self._requeues = False  # whether this element is to run once more
        self._programs: dict[str, str] = {}  # where the programs that were run are
        slots = os.path.join(element.root, "slots")
        stem = f"{element.round}.{element.number}."
        earlier: list[tuple[str, list[journal.Record]]] = []
        while os.path.exists(os.path.join(slots, f"{stem}{len(earlier)}.jsonl")):
            name = f"{stem}{len(earlier)}"
            earlier.append((name, journal.read(os.path.join(slots, f"{name}.jsonl"))))
        self._name = f"{stem}{len(earlier)}"
        self._book = journal.Journal(os.path.join(slots, f"{self._name}.jsonl"))
        self._book.write(journal.line("slot", self._header()))
        self._log = attempt.Log(os.path.join(slots, f"{self._name}.log"), settings.log_limit)
        self._queue = Queue(element.root, element.round)
        folder = os.path.join(element.root, "claims", str(element.round))
        claims.prepare(folder)
        for name in ("out", "checkpoints"):
            os.makedirs(os.path.join(element.root, name), exist_ok=True)
        self._claims = claims.Claims(folder, element.total, self._name, self._book)
        self._inherited = self._take_over(slots, earlier)
        self._environment = self._task_environment()
        self._programs["python"] = settings.python

    def run(self) -> None:
        """Work until the slot has been worth its start, or nothing is left."""
        os.chdir(os.path.join(self._element.root, "code", self._settings.cwd))
        if not self._element.pack and not self._inherited:
            own = self._claims.claim_exactly(self._element.number)
            self._inherited = [] if own is None else [own]
        for part in self._inherited:
            self._run(part)
        why = "its one task is done"
        while self._element.pack:
            why = self._reason_to_stop()
            if why:
                break
            claimed = self._claims.claim(self._want(), self._element.workers)
            if claimed is None and self._cancel_surplus():
                # What was given back meanwhile has nobody else to run it now.
                claimed = self._claims.claim(1, self._element.workers)
            if claimed is None:
                why = "nothing is unclaimed"
                break
            self._run(claimed)
        if self._warm is not None:
            self._warm.close()
        for spare in self._spare.values():
            os.rmdir(spare)
        if self._ending in (None, "TIMEOUT") and self._element.pack and self._is_last():
            self._requeues = self._requeues or self._claims.anything_left()
        self._book.write(journal.line("stop", {"why": why}))
        self._book.sync()
        if self._requeues:
            self._requeue()

    # ---- what to run -------------------------------------------------------------------------

    def _want(self) -> int:
        if self._ran == 0:
            return 1
        return max(1, int(BATCH_SECONDS * self._ran / max(self._busy, 1e-6)))

    def _reason_to_stop(self) -> str:
        """Why no further task is started; "" when one is."""
        self._take_signals(0.0)
        if self._ending:
            return f"the job is being ended ({self._ending})"
        if os.getppid() != self._parent:
            self._ending = "PREEMPTED"
            return "its supervisor was killed"
        if not self._ran:
            return ""
        elapsed = time.monotonic() - self._begun
        limit = self._element.time_limit
        if limit and elapsed + 1.1 * self._longest > limit - self._element.grace:
            return "the time limit leaves no room for another task"
        closes = self._element.number > self._element.last - self._element.workers
        if elapsed >= self._settings.min_slot_time and not closes and not self._is_last():
            return "the next element's turn"
        return ""

    def _run(self, part: Range) -> None:
        tasks = self._queue.read(part)
        for offset, (task, attempts) in enumerate(tasks):
            rest = Range(part.first + offset, part.size - offset, part.bump)
            if (self._ran or self._ending) and self._reason_to_stop() not in (
                "",
                "the next element's turn",
            ):
                self._claims.give_back(rest)
                return
            behind = Range(rest.first + 1, rest.size - 1, part.bump)
            if self._attempt(rest.first, task, attempts, behind):
                return  # `behind` was given back meanwhile

    # ---- one task ----------------------------------------------------------------------------

    def _attempt(self, position: int, task: "dict[str, Any]", earlier: int, behind: Range) -> bool:
        """Run one task; whether `behind` was given back while it ran."""
        number = task["task"]
        count = earlier + behind.bump + 1
        out, checkpoint = self._folders(number)
        result_file = os.path.join(out, "result.json")
        if count > 1:
            try:
                os.unlink(result_file)  # an earlier attempt's result is not this one's
            except OSError:
                pass  # there is none, or it is no file
        env = self._environment
        env.update(
            CLUSTERKIT_TASK=str(number),
            CLUSTERKIT_ATTEMPT=str(count),
            CLUSTERKIT_POINT=task["point"],
            CLUSTERKIT_SEED=str(int(task["point"][:16], 16) >> 1),
            CLUSTERKIT_PARAMS=json.dumps(task["params"]),
            CLUSTERKIT_OUT=out,
            CLUSTERKIT_CHECKPOINT=checkpoint,
        )
        base = {"position": position, "task": number, "attempt": count}
        self._book.write(journal.line("start", {**base, "log": self._log.begin()}))
        gave_back = False

        def tick() -> None:
            nonlocal gave_back
            self._log.bound()
            self._book.sync()
            if os.getppid() != self._parent:
                self._end("PREEMPTED", signal.SIGKILL)
            self._watch_time()
            running = time.monotonic() - begun
            if running > GIVE_BACK_AFTER and behind.size and not gave_back:
                gave_back = True
                self._claims.give_back(behind)

        begun = time.monotonic()
        try:
            self._current = self._start(task["argv"], env)
            ended = attempt.wait(self._current.poll, self._on_signal, tick)
        except attempt.CannotStart as error:
            ended = attempt.Outcome(error.exit, None, error.reason, 0.0, None)
        except BaseException:  # a full disk, say: no task outlives its slot
            if self._current is not None:
                self._current.kill(signal.SIGKILL)
            raise
        finally:
            self._current = None
        self._log.bound()
        state, reason = self._judge(ended)
        result, problem = results.read(result_file)
        again = self._again(state, checkpoint, behind.bump)
        self._tidy(out, checkpoint)
        self._book.write(
            journal.line(
                "end",
                {
                    **base,
                    "state": state,
                    "exit": ended.exit,
                    "signal": ended.signal,
                    "reason": reason or problem,
                    "s": round(ended.seconds, 6),
                    "mem": ended.memory,
                    "log": self._log.size(),
                    **({"result": result} if result is not None else {}),
                    **({"again": True} if again else {}),
                },
            )
        )
        self._ran += 1
        self._busy += ended.seconds
        self._longest = max(self._longest, ended.seconds)
        if again:
            self._claims.give_back(Range(position, 1, behind.bump + 1))
            self._requeues = self._requeues or state == "TIMEOUT"
        return gave_back

    def _start(self, argv: "list[str]", env: "dict[str, str]") -> Any:
        if (
            self._settings.warm
            and argv[0] == "python"
            and len(argv) > 1
            and argv[1].endswith(".py")
        ):
            from clusterkit.node import warm

            if self._warm is None:
                self._warm = warm.Warm(
                    self._settings.python, argv[1], self._settings.warm, env, self._log.descriptor
                )
            started = self._warm.start(argv, env)
            if started is not None:
                return started
        program = self._programs.get(argv[0])
        if program is None:
            program = attempt.find(argv[0], env["PATH"])
            self._programs[argv[0]] = program
        return attempt.spawn(program, argv, env, self._log.descriptor)

    def _watch_time(self) -> None:
        """Warn the task ahead of the time limit, and kill it when it does not end when told.

        The slot does so itself: SLURM's own `--signal` may come a minute early (sbatch(1)). Only
        processes that handle SIGUSR1 get it; any other would be killed by it, and may still finish.
        """
        now = time.monotonic()
        limit = self._element.time_limit
        if self._current is None:
            return
        late = limit and now - self._begun >= limit - self._element.grace
        if late and self._ending is None:
            self._ending = "TIMEOUT"
            strays.warn(self._current.pid, signal.SIGUSR1)
        if self._kill_at is not None and now >= self._kill_at:
            self._current.kill(signal.SIGKILL)

    def _take_signals(self, patience: float) -> None:
        """See signals that came while no task was waited for, or come within `patience` seconds."""
        while True:
            event = signal.sigtimedwait(TOLD_TO_END, patience)
            if event is None:
                return
            self._on_signal(event.si_signo)
            patience = 0.0

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR1:  # somebody asked for it with a raw `--signal`
            self._end("TIMEOUT", signal.SIGUSR1)
        elif number in (signal.SIGTERM, signal.SIGINT):
            cancelled = os.path.exists(os.path.join(self._element.root, "cancelled"))
            limit = self._element.time_limit
            late = limit and time.monotonic() - self._begun >= limit - 1
            self._end("CANCELLED" if cancelled else "TIMEOUT" if late else "PREEMPTED", number)
            self._kill_at = self._kill_at or time.monotonic() + KILL_AFTER

    def _end(self, state: str, number: int) -> None:
        """The slot is to end: the first cause counts, and the task is told."""
        self._ending = self._ending or state
        if self._current is not None:
            self._current.kill(number)

    def _judge(self, ended: attempt.Outcome) -> "tuple[str, Optional[str]]":
        if ended.exit == 0:
            return "COMPLETED", None
        # The scheduler signals a job's processes one by one: the task may go before its slot hears.
        by_signal = ended.signal in TOLD_TO_END or ended.signal == signal.SIGKILL
        self._take_signals(0.5 if by_signal and not self._ending else 0.0)
        if os.path.exists(os.path.join(self._element.root, "cancelled")):
            self._ending = "CANCELLED"
        if ended.signal == signal.SIGKILL and self._killed_for_memory():
            return "OUT_OF_MEMORY", "killed by the kernel: its memory limit was reached"
        if self._ending:
            words = {
                "TIMEOUT": "the job's time limit was reached",
                "CANCELLED": "the experiment was cancelled",
                "PREEMPTED": "the job was ended from outside",
            }
            return self._ending, f"{words[self._ending]} ({ended.reason})"
        if ended.signal == signal.SIGKILL:
            return "FAILED", f"{ended.reason}; often the machine ran out of memory"
        return "FAILED", self._log.explain(ended.reason) if ended.exit else ended.reason

    def _killed_for_memory(self) -> bool:
        before, self._kills = self._kills, memory.kills()
        return self._kills > before

    def _again(self, state: str, checkpoint: str, bump: int) -> bool:
        """Whether the task gets another attempt in this round."""
        if not self._element.pack or bump + 1 >= self._settings.max_attempts:
            return False
        if state == "TIMEOUT":  # without a checkpoint the next attempt would end like this one
            return not _is_empty(checkpoint)
        return state == "PREEMPTED"

    # ---- around it ---------------------------------------------------------------------------

    def _folders(self, number: int) -> tuple[str, str]:
        """CLUSTERKIT_OUT and CLUSTERKIT_CHECKPOINT of a task, made."""
        found = []
        for kind in ("out", "checkpoints"):
            folder = os.path.join(self._element.root, kind, str(number))
            spare = self._spare.pop(kind, None)
            try:
                if spare is None:
                    os.mkdir(folder)
                else:
                    os.rename(spare, folder)
            except FileExistsError:
                pass  # an earlier attempt's
            except OSError as error:
                # An earlier attempt's: it is not empty, or the task made a file of it.
                if error.errno not in (errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                assert spare is not None
                self._spare[kind] = spare
            found.append(folder)
        out, checkpoint = found
        return out, checkpoint

    def _tidy(self, out: str, checkpoint: str) -> None:
        """Keep a task's folders if it wrote into them; an empty one becomes the next task's.

        Renaming a folder costs a fraction of removing it and making another. Meanwhile it has a
        name of this slot's own: another slot may already run the task again.
        """
        for kind, folder in (("out", out), ("checkpoints", checkpoint)):
            spare = os.path.join(self._element.root, kind, f".{self._name}")
            if kind not in self._spare and _is_empty(folder):
                os.rename(folder, spare)
                self._spare[kind] = spare

    def _header(self) -> "dict[str, Any]":
        env = os.environ
        return {
            "experiment": self._settings.experiment,
            "round": self._element.round,
            "slot": self._element.number,
            "job": f"{env.get('SLURM_ARRAY_JOB_ID', '')}_{env.get('SLURM_ARRAY_TASK_ID', '')}",
            "restart": int(env.get("SLURM_RESTART_COUNT", "0")),
            "node": env.get("SLURMD_NODENAME") or socket.gethostname(),
            "pid": os.getpid(),
            "boot": strays.boot_id(),
        }

    def _task_environment(self) -> "dict[str, str]":
        env = dict(os.environ)
        env["PATH"] = os.path.dirname(self._settings.python) + os.pathsep + env.get("PATH", "")
        others = env.get("PYTHONPATH")
        code = os.path.join(self._element.root, "code")
        own = [os.path.normpath(os.path.join(code, folder)) for folder in self._settings.path]
        folders = [*own, self._settings.lib, *([others] if others else [])]
        env["PYTHONPATH"] = os.pathsep.join(folders)
        env.setdefault("PYTHONUNBUFFERED", "1")  # so that `logs --follow` shows prints at once
        env["CLUSTERKIT_EXPERIMENT"] = self._settings.experiment
        env["CLUSTERKIT_JOURNAL"] = self._book.path
        return env

    def _take_over(
        self, slots: str, earlier: "list[tuple[str, list[journal.Record]]]"
    ) -> "list[Range]":
        """What earlier incarnations left undone; their processes on this node are ended first."""
        if not earlier and not self._element.round:
            return []
        strays.end(self._settings.experiment, slots)
        parts = []
        for part in self._claims.inherit(earlier):
            if part.bump < self._settings.max_attempts:
                parts.append(part)
                continue
            for offset, (task, attempts) in enumerate(self._queue.read(part)):
                fields = {
                    "position": part.first + offset,
                    "task": task["task"],
                    "attempt": attempts + part.bump,
                    "state": "LOST",
                    "reason": f"its slot died {part.bump} times while it ran",
                }
                self._book.write(journal.line("end", fields))
        return parts

    def _surplus_marker(self) -> str:
        """The file that says: no further element of this array will start."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID")
        return os.path.join(
            self._element.root, "claims", str(self._element.round), f"surplus.{job}"
        )

    def _is_last(self) -> bool:
        """Whether no later element of this array can take what this one leaves."""
        element = self._element
        return element.number >= element.last or os.path.exists(self._surplus_marker())

    def _cancel_surplus(self) -> bool:
        """Cancel this array's elements that have not started: there is nothing left for them.

        Only those: an element that waits to be run *again* may own unfinished tasks.
        Returns False when another slot has done it.
        """
        element = self._element
        job = os.environ.get("SLURM_ARRAY_JOB_ID")
        try:
            os.close(os.open(self._surplus_marker(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        numbers = [
            int(name.split(".", 2)[1])
            for name in os.listdir(os.path.join(element.root, "slots"))
            if name.startswith(f"{element.round}.") and name.endswith(".jsonl")
        ]
        first = max(number for number in numbers if number <= element.last) + 1
        if job is not None and first <= element.last:
            offset = element.number - element.index
            self._scheduler(
                "scancel", "--state=PENDING", f"{job}_[{first - offset}-{element.last - offset}]"
            )
        return True

    def _requeue(self) -> None:
        """By `<array>_<index>`: the plain id would hit the whole array."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID")
        if job is not None:
            self._scheduler("scontrol", "requeue", f"{job}_{self._element.index}")

    def _scheduler(self, *argv: str) -> None:
        """Tell the scheduler something; a refusal is only noted, nothing depends on it."""
        try:
            program = attempt.find(argv[0], os.environ.get("PATH", os.defpath))
        except attempt.CannotStart as error:
            print(error, file=sys.stderr, flush=True)
            return
        pid = os.posix_spawn(program, list(argv), os.environ, setsigmask=[])
        os.waitpid(pid, 0)


def _is_empty(folder: str) -> bool:
    """Whether it is a folder with nothing in it; a task may have removed its own."""
    try:
        return not os.listdir(folder)
    except OSError:
        return False
