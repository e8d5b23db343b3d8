"""What state every task is in, and why: journals say what happened, the scheduler why it did not.

The scheduler is asked *before* the journals are collected: whatever it calls ended has then written
all it ever will. A task is lost only when both agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clusterkit import slurm
from clusterkit.errors import CommandFailed
from clusterkit.records import Experiment, Submission, TaskRow, TaskState
from clusterkit.slurm import JobElement
from clusterkit.store import Store
from clusterkit.transport import Connection

ALIVE = (TaskState.PENDING, TaskState.RUNNING)


@dataclass(frozen=True, slots=True)
class Look:
    """What the scheduler said at one moment about an experiment's arrays."""

    submissions: tuple[Submission, ...]
    elements: tuple[JobElement, ...]
    under_way: bool = False  # somebody was submitting just before

    @property
    def alive(self) -> bool:
        """Whether an element waits or runs."""
        return any(element.state in ALIVE for element in self.elements)

    def element(self, slot: str) -> JobElement | None:
        """What is known of the element that a slot (round.number.incarnation) belongs to."""
        round_, number, _ = (int(part) for part in slot.split("."))
        for submission in self.submissions:
            index = number - submission.offset
            if submission.round == round_ and 0 <= index < submission.size:
                for element in self.elements:
                    if element.job_id == submission.job_id and element.holds(index):
                        return element
        return None

    @property
    def reason(self) -> str:
        """Why elements wait, in SLURM's words, or ""."""
        for element in self.elements:
            if element.state is TaskState.PENDING and element.reason not in ("", "None"):
                return element.reason
        return ""


def look(store: Store, connection: Connection, experiment: str) -> Look:
    """Ask the scheduler; ids that an interrupted submission did not record are found by name."""
    under_way = store.being_submitted(experiment)  # before the scheduler is asked
    submissions = store.submissions(experiment)
    answer = connection.transport.run(
        slurm.squeue_argv(s.job_name for s in submissions),
        env={**connection.env, **slurm.SQUEUE_ENVIRONMENT},
    )
    elements = slurm.parse_squeue(answer.text)
    jobs = {element.job_name: element.job_id for element in elements}
    found = []
    for submission in submissions:
        if submission.job_id is None and submission.job_name in jobs:
            found.append(store.set_job_id(submission, jobs[submission.job_name]))
        else:
            found.append(submission)
    forgotten = [
        s.job_id
        for s in found
        if s.job_id is not None and not any(e.job_id == s.job_id for e in elements)
    ]
    if forgotten:
        elements += _accounted(connection, forgotten)
    return Look(tuple(found), tuple(elements), under_way)


def _accounted(connection: Connection, jobs: Iterable[int]) -> list[JobElement]:
    """What accounting remembers of jobs that the controller has forgotten; [] where it is off."""
    try:
        return slurm.parse_sacct(connection.run(slurm.sacct_argv(jobs)).text)
    except CommandFailed:
        return []  # accounting is optional: then the reason is simply not known


def judge(
    experiment: Experiment, tasks: Sequence[TaskRow], seen: Look
) -> dict[int, tuple[TaskState, str]]:
    """States of tasks that nobody works on although no journal ended them. Pure.

    `tasks` must have been harvested after `seen`.
    """
    if seen.under_way:
        return {}
    unsubmitted = any(s.job_id is None for s in seen.submissions)
    found: dict[int, tuple[TaskState, str]] = {}
    for task in tasks:
        if task.state is TaskState.RUNNING and task.slot is not None:
            element = seen.element(task.slot)
            if element is not None and element.state in ALIVE:
                continue
            found[task.index] = _ended(experiment, element, f"slot {task.slot}")
        elif task.state is TaskState.PENDING and not seen.alive:
            if experiment.cancelled:
                found[task.index] = (TaskState.CANCELLED, "the experiment was cancelled")
            elif unsubmitted:
                found[task.index] = (TaskState.LOST, "it was never submitted (interrupted parrun)")
            else:
                found[task.index] = _ended(experiment, _last_bad(seen), "every slot")
    return found


def _last_bad(seen: Look) -> JobElement | None:
    bad = [e for e in seen.elements if e.state not in (*ALIVE, TaskState.COMPLETED)]
    return bad[-1] if bad else None


def _ended(experiment: Experiment, element: JobElement | None, what: str) -> tuple[TaskState, str]:
    if element is None or element.state in (TaskState.COMPLETED, TaskState.UNKNOWN):
        return TaskState.LOST, f"{what} is gone and left no word of it"
    if element.state is TaskState.FAILED:
        return TaskState.LOST, f"{what} was killed (job {element.job_id} {element.word})"
    if element.state is TaskState.CANCELLED and experiment.cancelled:
        return TaskState.CANCELLED, "the experiment was cancelled"
    node = f" on {element.node}" if element.node else ""
    return element.state, f"SLURM ended {what}{node}: {element.word}, {element.reason}"


def cancel(store: Store, connection: Connection, experiment: Experiment) -> int:
    """Cancel what is left; how many arrays were told. Slots write down what they stopped."""
    store.set_cancelled(experiment.id, True)
    connection.run(["touch", "--", f"{experiment.root}/cancelled"])
    seen = look(store, connection, experiment.id)
    jobs = {e.job_id for e in seen.elements if e.state in ALIVE}
    if jobs:
        connection.run(slurm.scancel_argv(sorted(jobs)))
    return len(jobs)


#: What `rerun --missing` and `rerun --failed` choose.
MISSING = frozenset(
    {
        TaskState.LOST, TaskState.CANCELLED, TaskState.PREEMPTED, TaskState.NODE_FAIL,
        TaskState.UNKNOWN,
    }
)  # fmt: skip
FAILED = frozenset({TaskState.FAILED, TaskState.TIMEOUT, TaskState.OUT_OF_MEMORY})
AGAIN = MISSING | FAILED


def choose(tasks: Iterable[TaskRow], *, missing: bool, failed: bool) -> list[int]:
    """The tasks to run again."""
    wanted = (MISSING if missing else frozenset()) | (FAILED if failed else frozenset())
    return [task.index for task in tasks if task.state in wanted]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an experiment is. Rates in tasks a second, times in seconds."""

    counts: Mapping[TaskState, int]
    rate: float | None
    left: float | None

    @property
    def done(self) -> int:
        return self.counts.get(TaskState.COMPLETED, 0)

    @property
    def finished(self) -> bool:
        return all(state.finished for state in self.counts)


def progress(counts: Mapping[TaskState, int], pace: tuple[float, float, int] | None) -> Progress:
    """From the tasks' states and the store's `pace`."""
    waiting = sum(counts.get(state, 0) for state in ALIVE)
    if pace is None or pace[1] <= pace[0]:
        return Progress(counts, None, None)
    rate = pace[2] / (pace[1] - pace[0])
    return Progress(counts, rate, waiting / rate if waiting else 0.0)
