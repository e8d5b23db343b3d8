"""Who works on what: ranges of a round's positions, claimed atomically on a shared file system.

The claims form a chain. The symbolic link `claims/<round>/<first>` holds "<count> <slot>" as its
target: the slot has claimed positions first .. first+count-1, and the next claim begins behind
them. Making a link is one atomic, exclusive operation that carries its content with it, also over
NFS; a reply that was lost shows as "exists", and then the target says whether it was ours. So a
claim costs one operation and no slot reads a list. The file `next` holds a recent end of the
chain, a hint that may be behind but never ahead.

A slot that cannot finish what it claimed gives it back:
`returned/<first>-<count>-<bump>-<slot>-<n>`. Whoever renames that file to `taken/...@<own slot>`
has it. `bump` counts the attempts that were already made of it in this round.

Every claim, take and return is journalled *before* it is made; links and files tell afterwards
which intentions came true. So a slot that was killed at any point can be taken over by its next
incarnation (`inherit`).
"""

from __future__ import annotations

import os
from typing import Iterable, NamedTuple, Optional

from clusterkit.node import journal


class Range(NamedTuple):
    """Positions first .. first+size-1, tried `bump` times before in this round."""

    first: int
    size: int
    bump: int = 0


class Claims:
    """One slot's view of the claims of one round over `total` positions."""

    def __init__(self, folder: str, total: int, slot: str, book: journal.Journal) -> None:
        self._folder = folder
        self._total = total
        self._slot = slot
        self._book = book
        self._end = self._hint()
        self._returns = 0

    def claim(self, want: int, workers: int) -> Optional[Range]:
        """The next range, at most `want` long, or None when nothing is unclaimed.

        What was given back comes first. Ranges shrink towards the end, so that `workers` slots
        finish together (guided self-scheduling, Polychronopoulos and Kuck 1987).
        """
        taken = self._take_returned()
        if taken is not None:
            return taken
        while self._end < self._total:
            first = self._end
            left = self._total - first
            count = max(1, min(want, left // (2 * max(1, workers))))
            self._book.write(journal.line("claim", {"first": first, "count": count}))
            owner, length = self._link(first, count)
            self._end = first + length
            if owner == self._slot:
                self._write_hint()
                return Range(first, count)
        return None

    def claim_exactly(self, position: int) -> Optional[Range]:
        """This one position (one task an element), or None when another slot has it."""
        self._book.write(journal.line("claim", {"first": position, "count": 1}))
        owner, _ = self._link(position, 1)
        return Range(position, 1) if owner == self._slot else None

    def give_back(self, given: Range) -> None:
        """Let others have a range that this slot had claimed."""
        self._returns += 1
        name = f"{given.first}-{given.size}-{given.bump}-{self._slot}-{self._returns}"
        self._book.write(
            journal.line("return", {"name": name, "first": given.first, "count": given.size})
        )
        path = os.path.join(self._folder, "returned", name)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))

    def anything_left(self) -> bool:
        """Whether a claim would find something (someone else may be faster, of course)."""
        return self._end < self._total or bool(os.listdir(os.path.join(self._folder, "returned")))

    def inherit(self, earlier: Iterable[tuple[str, list[journal.Record]]]) -> list[Range]:
        """What earlier incarnations of this slot had claimed, and neither finished nor gave back.

        `earlier` are (slot name, records) of each. A position whose last attempt ended is done
        (unless that record says `again`, and the killed slot had not yet given it back);
        one with an attempt that began and did not end is due again, with one more attempt.
        The positions of started tasks are told by `position` in the start records.
        """
        owned: dict[int, int] = {}  # position -> bump
        for slot, records in earlier:
            for record in records:
                kind = record["k"]
                if kind == "claim":
                    first, count = record["first"], record["count"]
                    if self._owner(first) == (slot, count):
                        owned.update(dict.fromkeys(range(first, first + count), 0))
                elif kind == "take":
                    if os.path.exists(self._path("taken", f"{record['name']}@{slot}")):
                        first, count, bump = _parse(record["name"])
                        owned.update(dict.fromkeys(range(first, first + count), bump))
                elif kind == "return":
                    if self._was_returned(record["name"]):
                        for position in range(record["first"], record["first"] + record["count"]):
                            owned.pop(position, None)
                elif kind == "start" and record["position"] in owned:
                    owned[record["position"]] += 1
                elif kind == "end" and not record.get("again"):
                    owned.pop(record["position"], None)
        return _ranges(owned)

    def _path(self, *names: str) -> str:
        return os.path.join(self._folder, *names)

    def _link(self, first: int, count: int) -> tuple[str, int]:
        """Try to claim; whose the range is now, and how long it is."""
        try:
            os.symlink(f"{count} {self._slot}", self._path(str(first)))
        except FileExistsError:
            slot, length = self._owner(first)
            return slot, length
        return self._slot, count

    def _owner(self, first: int) -> tuple[str, int]:
        try:
            count, _, slot = os.readlink(self._path(str(first))).partition(" ")
        except FileNotFoundError:
            return "", 0
        return slot, int(count)

    def _take_returned(self) -> Optional[Range]:
        for name in os.listdir(self._path("returned")):
            self._book.write(journal.line("take", {"name": name}))
            target = self._path("taken", f"{name}@{self._slot}")
            try:
                os.rename(self._path("returned", name), target)
            except FileNotFoundError:
                if not os.path.exists(target):  # else the reply was lost, and it is ours
                    continue
            return _parse(name)
        return None

    def _was_returned(self, name: str) -> bool:
        if os.path.exists(self._path("returned", name)):
            return True
        return any(taken.startswith(name + "@") for taken in os.listdir(self._path("taken")))

    def _hint(self) -> int:
        try:
            with open(self._path("next"), "rb") as file:
                hint = int(file.read(20) or 0)
        except (FileNotFoundError, ValueError):
            return 0
        return hint if 0 < hint <= self._total else 0

    def _write_hint(self) -> None:
        descriptor = os.open(self._path("next"), os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, b"%-19d\n" % self._end, 0)
        finally:
            os.close(descriptor)


def prepare(folder: str) -> None:
    """Make the folders of one round's claims."""
    for name in ("returned", "taken"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)


def _parse(name: str) -> Range:
    first, count, bump = name.split("-", 3)[:3]
    return Range(int(first), int(count), int(bump))


def _ranges(owned: dict[int, int]) -> list[Range]:
    """Positions with their bumps as ranges of neighbours with the same bump."""
    found: list[Range] = []
    for position in sorted(owned):
        bump = owned[position]
        last = found[-1] if found else None
        if last is not None and last.first + last.size == position and last.bump == bump:
            found[-1] = Range(last.first, last.size + 1, bump)
        else:
            found.append(Range(position, 1, bump))
    return found
