"""What state a task is in when its journal does not say: the truth table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from store_rows import experiment, submission, task

from clusterkit.records import TaskState
from clusterkit.slurm import JobElement
from clusterkit.sweep import track
from clusterkit.sweep.track import Look

S = TaskState


def element(state: TaskState, *indexes: tuple[int, int], **more: Any) -> JobElement:
    fields: dict[str, Any] = {
        "job_id": 17, "job_name": "train-0a1b2c3d-0.0", "state": state, "word": str(state),
        "reason": "None", "node": "node1", "indexes": indexes or ((0, 2),),
    }  # fmt: skip
    return JobElement(**{**fields, **more})


def look(*elements: JobElement, job_id: int | None = 17) -> Look:
    return Look((submission(job_id=job_id),), elements)


def judged(
    state: TaskState, seen: Look, *, slot: str | None = None, **more: Any
) -> tuple[TaskState, str] | None:
    one = task(0, state=state, slot=slot)
    return track.judge(experiment(**more), [one], seen).get(0)


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        (S.RUNNING, look(element(S.RUNNING))),
        (S.RUNNING, look(element(S.PENDING))),  # requeued
        (S.RUNNING, look(element(S.COMPLETED, (1, 2)), element(S.RUNNING, (0, 0)))),
        (S.PENDING, look(element(S.RUNNING, (1, 1)))),
        (S.PENDING, look(element(S.PENDING))),
        (S.PENDING, look(element(S.FAILED, (0, 1)), element(S.PENDING, (2, 2)))),
        (S.COMPLETED, look()),
        (S.FAILED, look(element(S.NODE_FAIL))),
        (S.TIMEOUT, look()),
    ],
)
def test_left_as_they_are(state: TaskState, seen: Look) -> None:
    assert judged(state, seen, slot="0.0.0") is None


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (look(), S.LOST, "slot 0.0.1 is gone and left no word"),
        (look(element(S.COMPLETED)), S.LOST, "gone and left no word"),
        (look(element(S.FAILED)), S.LOST, "slot 0.0.1 was killed (job 17 FAILED)"),
        (look(element(S.UNKNOWN)), S.LOST, "gone"),
        (look(element(S.TIMEOUT, reason="TimeLimit")), S.TIMEOUT, "on node1: TIMEOUT, TimeLimit"),
        (look(element(S.OUT_OF_MEMORY)), S.OUT_OF_MEMORY, "SLURM ended slot 0.0.1 on node1"),
        (look(element(S.NODE_FAIL)), S.NODE_FAIL, "NODE_FAIL"),
        (look(element(S.PREEMPTED)), S.PREEMPTED, "PREEMPTED"),
        (look(element(S.CANCELLED, word="CANCELLED by 5")), S.CANCELLED, "CANCELLED by 5"),
        # Others live, but not the one that ran it.
        (look(element(S.TIMEOUT, (0, 0)), element(S.RUNNING, (1, 2))), S.TIMEOUT, "TIMEOUT"),
    ],
)
def test_running_with_nobody_running_it(seen: Look, state: TaskState, words: str) -> None:
    found = judged(S.RUNNING, seen, slot="0.0.1")
    assert found is not None
    assert found[0] is state
    assert words in found[1]


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (look(), S.LOST, "every slot is gone"),
        (look(element(S.COMPLETED)), S.LOST, "every slot is gone"),
        (look(element(S.FAILED)), S.LOST, "every slot was killed (job 17 FAILED)"),
        (look(element(S.TIMEOUT)), S.TIMEOUT, "SLURM ended every slot"),
        (look(element(S.CANCELLED)), S.CANCELLED, "SLURM ended"),
        (look(job_id=None), S.LOST, "never submitted"),
    ],
)
def test_waiting_with_nobody_left(seen: Look, state: TaskState, words: str) -> None:
    found = judged(S.PENDING, seen)
    assert found is not None
    assert found[0] is state
    assert words in found[1]


def test_cancelled_by_its_owner() -> None:
    for state, slot in ((S.PENDING, None), (S.RUNNING, "0.0.0")):
        found = judged(state, look(element(S.CANCELLED)), slot=slot, cancelled=True)
        assert found == (S.CANCELLED, "the experiment was cancelled")


def test_nothing_is_judged_while_a_submission_may_be_under_way() -> None:
    seen = look(job_id=None)
    assert judged(S.PENDING, seen) is not None
    assert judged(S.PENDING, replace(seen, under_way=True)) is None
    assert judged(S.RUNNING, replace(seen, under_way=True), slot="0.0.0") is None


def test_slots_are_found_in_later_rounds_and_chunks() -> None:
    submissions = (
        submission(job_id=17, size=10),
        submission(job_id=18, chunk=1, offset=10, size=5, job_name="b"),
        submission(job_id=19, round=1, size=3, job_name="c"),
    )
    seen = Look(
        submissions,
        (
            element(S.RUNNING, (0, 9), job_id=17),
            element(S.TIMEOUT, (2, 2), job_id=18),
            element(S.NODE_FAIL, (0, 2), job_id=19),
        ),
    )
    for slot, state in (("0.3.0", S.RUNNING), ("0.12.4", S.TIMEOUT), ("1.2.0", S.NODE_FAIL)):
        found = seen.element(slot)
        assert found is not None
        assert found.state is state
    assert seen.element("0.13.0") is None
    assert seen.element("2.0.0") is None
    assert seen.alive


def test_the_reason_for_waiting() -> None:
    assert look(element(S.RUNNING)).reason == ""
    seen = look(element(S.PENDING, reason="None"), element(S.PENDING, reason="Resources"))
    assert seen.reason == "Resources"


def test_every_state_is_chosen_by_one_flag_or_none() -> None:
    tasks = [task(n, state=state) for n, state in enumerate(TaskState)]
    missing = set(track.choose(tasks, missing=True, failed=False))
    failed = set(track.choose(tasks, missing=False, failed=True))
    both = set(track.choose(tasks, missing=True, failed=True))
    assert not missing & failed
    assert both == missing | failed
    neither = {tasks[n].state for n in range(len(tasks)) if n not in both}
    assert neither == {S.PENDING, S.RUNNING, S.COMPLETED}
    assert track.choose(tasks, missing=False, failed=False) == []


def test_progress() -> None:
    found = track.progress({S.COMPLETED: 6, S.PENDING: 3, S.RUNNING: 1}, (100.0, 110.0, 5))
    assert (found.rate, found.left, found.done, found.finished) == (0.5, 8.0, 6, False)
    assert track.progress({S.COMPLETED: 6}, (1.0, 1.0, 6)).rate is None
    assert track.progress({S.COMPLETED: 6, S.LOST: 1}, None).finished
