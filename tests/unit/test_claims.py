"""Claims: every position exactly once, whoever dies when."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import pytest

from clusterkit.node import claims, journal
from clusterkit.node.claims import Claims, Range

TOTAL = 2000


def slot(folder: Path, name: str, total: int = 100) -> Claims:
    claims.prepare(str(folder))
    return Claims(str(folder), total, name, journal.Journal(str(folder.parent / f"{name}.jsonl")))


def records(folder: Path, name: str) -> tuple[str, list[journal.Record]]:
    return name, journal.read(str(folder.parent / f"{name}.jsonl"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "claims"
    found.mkdir()
    return found


def test_ranges_follow_each_other_and_shrink(folder: Path) -> None:
    one, two = slot(folder, "0.0.0"), slot(folder, "0.1.0")
    sizes = []
    seen: list[int] = []
    for worker in itertools.cycle((one, two)):
        part = worker.claim(10, 4)
        if part is None:
            break
        sizes.append(part.size)
        seen.extend(range(part.first, part.first + part.size))
    assert seen == list(range(100))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 10
    assert sizes[-1] == 1
    assert two.claim(1, 4) is None
    assert not one.anything_left()


def test_what_is_given_back_comes_first_and_once(folder: Path) -> None:
    one, two = slot(folder, "0.0.0"), slot(folder, "0.1.0")
    part = one.claim(5, 1)
    assert part == Range(0, 5)
    one.give_back(Range(2, 3, 1))
    assert two.anything_left()
    assert two.claim(1, 1) == Range(2, 3, 1)
    assert one.claim(1, 1) == Range(5, 1)


def test_a_hint_may_be_stale_torn_or_missing(folder: Path) -> None:
    one = slot(folder, "0.0.0")
    for _ in range(3):
        one.claim(7, 1)
    for text in ("7", "", "0", "99999", "-3", "x\n", "7 \n"):
        (folder / "next").write_text(text)
        fresh = slot(folder, f"0.{random.random()}.0")
        assert fresh.claim(1, 1) is not None
    firsts = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert firsts == [0, 7, 14, *range(21, 28)]


def test_a_reply_that_was_lost_is_found_to_be_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS: the link was made, its answer got lost, the repeated request says "exists"."""
    one = slot(folder, "0.0.0")
    real = os.symlink

    def lossy(target: str, path: str) -> None:
        real(target, path)
        raise FileExistsError(path)

    monkeypatch.setattr(os, "symlink", lossy)
    assert one.claim(3, 1) == Range(0, 3)
    monkeypatch.undo()
    assert slot(folder, "0.1.0").claim(3, 1) == Range(3, 3)


def test_one_position_exactly(folder: Path) -> None:
    one, two = slot(folder, "0.3.0"), slot(folder, "0.3.1")
    assert one.claim_exactly(3) == Range(3, 1)
    assert two.claim_exactly(3) is None


def _race(folder: str, name: str, seed: int, sink: Any) -> None:
    chance = random.Random(seed)
    book = journal.Journal(str(Path(folder).parent / f"{name}.jsonl"))
    mine = Claims(folder, TOTAL, name, book)
    done: list[tuple[int, int]] = []
    while (part := mine.claim(chance.randint(1, 40), 4)) is not None:
        cut = chance.randint(1, part.size)
        if cut < part.size or (part.bump == 0 and chance.random() < 0.1):
            cut = min(cut, part.size - 1) if part.size > 1 else 0
            mine.give_back(Range(part.first + cut, part.size - cut, part.bump + 1))
        done.extend((position, part.bump) for position in range(part.first, part.first + cut))
    sink.put(done)


def test_processes_race_with_returns_and_every_position_is_done_once(folder: Path) -> None:
    claims.prepare(str(folder))
    context = multiprocessing.get_context("fork")
    sink = context.Queue()
    workers = [
        context.Process(target=_race, args=(str(folder), f"0.{n}.0", n, sink)) for n in range(5)
    ]
    for worker in workers:
        worker.start()
    done = [position for _ in workers for position, _ in sink.get(timeout=60)]
    for worker in workers:
        worker.join()
    # A slot that left before another one gave back leaves the rest to those that are still there;
    # the last one finds it all.
    assert sorted(done) == list(range(TOTAL))


class Killed(BaseException):
    """Stands for kill -9."""


OPERATIONS = ("symlink", "rename", "open", "pwrite", "write")


def _life(folder: Path, name: str, earlier: list[str]) -> None:
    """A slot's life, with the records that a slot writes."""
    book = journal.Journal(str(folder.parent / f"{name}.jsonl"))
    mine = Claims(str(folder), 12, name, book)
    todo = mine.inherit([records(folder, e) for e in earlier])
    gave = 0
    while True:
        part = todo.pop(0) if todo else mine.claim(3, 1)
        if part is None:
            return
        for position in range(part.first, part.first + part.size):
            if position % 4 == 2 and part.bump == 0 and gave < 2:
                gave += 1
                mine.give_back(Range(position, part.first + part.size - position, 1))
                break
            book.write(journal.line("start", {"position": position, "task": position}))
            book.write(journal.line("end", {"position": position, "task": position}))


def test_killed_at_every_operation_and_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each system call that changes something: nothing lost, nothing twice."""
    killed = 0
    for moment, before in itertools.product(range(1000), (True, False)):
        folder = tmp_path / f"{moment}-{before}" / "claims"
        folder.mkdir(parents=True)
        claims.prepare(str(folder))
        calls = itertools.count()

        def deadly(
            real: Any, calls: Any = calls, moment: int = moment, before: bool = before
        ) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                now = next(calls)
                if now == moment and before:
                    raise Killed
                found = real(*args, **kwargs)
                if now == moment:
                    raise Killed
                return found

            return call

        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, deadly(getattr(os, name)))
            try:
                _life(folder, "0.0.0", [])
            except Killed:
                killed += 1
            else:
                break
        journals = [n for n in ("0.0.0",) if (folder.parent / f"{n}.jsonl").exists()]
        _life(folder, "0.0.1", journals)
        ends = [
            record["position"]
            for name in (*journals, "0.0.1")
            for record in records(folder, name)[1]
            if record["k"] == "end"
        ]
        assert sorted(ends) == list(range(12)), f"killed at call {moment}, before it: {before}"
    assert killed > 80


def test_a_started_task_is_due_again_with_one_more_attempt(folder: Path) -> None:
    one = slot(folder, "0.0.0")
    assert one.claim(4, 1) == Range(0, 4)
    book = one._book
    for position in (0, 1):
        book.write(journal.line("start", {"position": position}))
    book.write(journal.line("end", {"position": 0}))
    two = slot(folder, "0.0.1")
    assert two.inherit([records(folder, "0.0.0")]) == [Range(1, 1, 1), Range(2, 2, 0)]


def test_again_before_and_after_it_was_given_back(folder: Path) -> None:
    one = slot(folder, "0.0.0")
    one.claim(1, 1)
    one._book.write(journal.line("start", {"position": 0}))
    one._book.write(journal.line("end", {"position": 0, "again": True}))
    assert slot(folder, "0.0.1").inherit([records(folder, "0.0.0")]) == [Range(0, 1, 1)]
    one.give_back(Range(0, 1, 1))
    assert slot(folder, "0.0.2").inherit([records(folder, "0.0.0")]) == []


def test_inheritance_goes_over_several_incarnations(folder: Path) -> None:
    one = slot(folder, "0.0.0")
    one.claim(4, 1)
    one._book.write(journal.line("start", {"position": 0}))
    two = slot(folder, "0.0.1")
    assert two.inherit([records(folder, "0.0.0")]) == [Range(0, 1, 1), Range(1, 3, 0)]
    two._book.write(journal.line("start", {"position": 0}))
    two._book.write(journal.line("end", {"position": 0}))
    two._book.write(journal.line("start", {"position": 1}))
    three = slot(folder, "0.0.2")
    earlier = [records(folder, "0.0.0"), records(folder, "0.0.1")]
    assert three.inherit(earlier) == [Range(1, 1, 1), Range(2, 2, 0)]
