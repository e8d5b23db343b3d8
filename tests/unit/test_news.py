"""What journals say becomes rows: once, in any order, in any pieces."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
import store_rows as rows
from store_rows import HEADER, end, lines, log, news, start

from clusterkit.records import TaskState
from clusterkit.store import Store

E = "0a1b2c3d"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "c.db")
    rows.add(found)
    return found


def test_a_whole_life(store: Store) -> None:
    data = lines(HEADER, start(0), log(0, loss=0.5, step=1), log(0, loss=0.25), end(0))
    assert store.apply(E, [news("0.0.0", data)]) == 5
    row = store.tasks(E)[0]
    assert (row.state, row.exit_code, row.seconds, row.peak_memory, row.node, row.attempt) == (
        TaskState.COMPLETED, 0, 1.5, 1 << 20, "node1", 1,
    )  # fmt: skip
    assert row.result == {"loss": 0.25, "step": 1}
    assert (row.slot, row.log_start, row.log_end) == ("0.0.0", 0, 10)
    assert store.attempts(E) == {0: 1}
    assert len(list(store.series(E))) == 2


def test_result_json_joins_what_was_logged(store: Store) -> None:
    data = lines(start(0), log(0, loss=0.5, a=1), end(0, result={"loss": 0.1, "b": 2}))
    store.apply(E, [news("0.0.0", data)])
    assert store.tasks(E)[0].result == {"loss": 0.1, "a": 1, "b": 2}


def test_every_cut_into_two_harvests_gives_the_same(tmp_path: Path) -> None:
    pieces = [
        lines(record)
        for record in (
            HEADER, start(0), log(0, v=1), end(0), start(1), log(1, v=2),
            end(1, state="FAILED", exit=3, reason="exit code 3"),
        )
    ]  # fmt: skip
    found = set()
    for cut in range(len(pieces) + 1):
        store = Store(tmp_path / f"{cut}.db")
        rows.add(store)
        first, second = b"".join(pieces[:cut]), b"".join(pieces[cut:])
        store.apply(E, [news("0.0.0", first)])
        store.apply(E, [news("0.0.0", second, len(first))])
        found.add(repr([store.tasks(E), store.attempts(E), len(list(store.series(E)))]))
    assert len(found) == 1


def test_two_harvests_at_once_overlap(store: Store) -> None:
    one, two = lines(HEADER, start(0), log(0, v=1)), lines(end(0), start(1))
    assert store.apply(E, [news("0.0.0", one)]) == 3
    # The other harvest began at 0 too, and read further.
    assert store.apply(E, [news("0.0.0", one + two)]) == 2
    assert store.apply(E, [news("0.0.0", one)]) == 0
    assert store.apply(E, [news("0.0.0", two, len(one))]) == 0
    assert len(list(store.series(E))) == 1
    assert store.offsets(E) == {"0.0.0.jsonl": len(one + two)}


def test_a_gap_is_left_for_the_next_harvest(store: Store) -> None:
    one, two = lines(start(0)), lines(end(0))
    assert store.apply(E, [news("0.0.0", two, len(one))]) == 0
    assert rows.states(store)[0] is TaskState.PENDING
    assert store.offsets(E) == {}


def test_several_pieces_of_one_journal_in_one_harvest(store: Store) -> None:
    one, two = lines(HEADER, start(0)), lines(end(0))
    assert store.apply(E, [news("0.0.0", one), news("0.0.0", two, len(one))]) == 3
    assert store.tasks(E)[0].node == "node1"


def test_the_node_is_remembered_between_harvests(store: Store) -> None:
    one = lines(HEADER)
    store.apply(E, [news("0.0.0", one)])
    store.apply(E, [news("0.0.0", lines(start(0), end(0)), len(one))])
    assert store.tasks(E)[0].node == "node1"


def test_a_later_attempt_wins_whatever_came_first(tmp_path: Path) -> None:
    journals = [
        news("0.0.0", lines(start(0), log(0, v=1), end(0, state="TIMEOUT", again=True))),
        news("0.1.0", lines(start(0, 2), log(0, 2, v=2), end(0, 2, state="FAILED", exit=1))),
        news("1.0.0", lines(start(0, 3), log(0, 3, w=3))),
    ]
    for number, order in enumerate(itertools.permutations(journals)):
        store = Store(tmp_path / f"{number}.db")
        rows.add(store)
        for piece in order:
            store.apply(E, [piece])
        row = store.tasks(E)[0]
        assert (row.state, row.attempt, row.slot) == (TaskState.RUNNING, 3, "1.0.0")
        assert row.result == {"w": 3}
        assert store.attempts(E) == {0: 3}


def test_completed_stays_completed(store: Store) -> None:
    store.apply(E, [news("0.0.0", lines(start(0), end(0, result={"v": 1})))])
    store.apply(E, [news("1.0.0", lines(start(0, 2), end(0, 2, state="FAILED")))])
    row = store.tasks(E)[0]
    assert (row.state, row.attempt, row.result) == (TaskState.COMPLETED, 1, {"v": 1})


def test_again_waits_again(store: Store) -> None:
    store.apply(E, [news("0.0.0", lines(start(0), end(0, state="PREEMPTED", again=True)))])
    assert rows.states(store)[0] is TaskState.PENDING
    assert store.pace(E) is None  # an attempt that was cut short tells nothing of the pace


def test_a_lost_task_that_speaks_again_is_no_longer_lost(store: Store) -> None:
    one = lines(start(0))
    store.apply(E, [news("0.0.0", one)])
    store.settle(E, {0: (TaskState.LOST, "gone")})
    store.apply(E, [news("0.0.0", lines(end(0)), len(one))])
    assert rows.states(store)[0] is TaskState.COMPLETED
    assert store.tasks(E)[0].reason is None


def test_a_state_of_a_later_version_is_unknown(store: Store) -> None:
    store.apply(E, [news("0.0.0", lines(start(0), end(0, state="ABDUCTED")))])
    assert rows.states(store)[0] is TaskState.UNKNOWN


def test_torn_and_foreign_lines_are_passed_over_and_counted_in(store: Store) -> None:
    data = b'{"k":"sta\n' + lines(("later", {"x": 1}), start(0), end(77)) + b"\xff\xfe\n"
    store.apply(E, [news("0.0.0", data)])
    assert rows.states(store)[0] is TaskState.RUNNING
    assert store.offsets(E) == {"0.0.0.jsonl": len(data)}


def test_values_survive(store: Store) -> None:
    values = {"nan": float("nan"), "big": 10**30, "text": "é\ud800", "list": [1, [2]], "none": None}
    store.apply(E, [news("0.0.0", lines(start(0), log(0, **values), end(0)))])
    found = store.tasks(E)[0].result
    assert found is not None
    assert repr(found) == repr(values)


def test_many_journals_in_random_pieces(store: Store, tmp_path: Path) -> None:
    chance = random.Random(0)
    many = Store(tmp_path / "many.db")
    rows.add(many, tasks=600)
    data = {
        f"0.{slot}.0": lines(
            HEADER,
            *itertools.chain(*((start(n), log(n, n=n), end(n)) for n in range(slot, 600, 5))),
        )
        for slot in range(5)
    }
    known = dict.fromkeys(data, 0)
    while any(known[name] < len(data[name]) for name in data):
        pieces = []
        for name, whole in data.items():
            stop = whole.find(b"\n", min(len(whole) - 1, known[name] + chance.randint(1, 9000))) + 1
            begin = chance.choice([known[name], 0])
            pieces.append(news(name, whole[begin:stop], begin))
            known[name] = max(known[name], stop)
        many.apply(E, pieces)
    assert set(rows.states(many)) == {TaskState.COMPLETED}
    assert [row.result for row in many.tasks(E)] == [{"n": n} for n in range(600)]
    assert len(list(many.series(E))) == 600
