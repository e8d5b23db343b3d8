"""The journal: one line a record, whatever cuts it."""

from __future__ import annotations

import errno
import math
import os
import threading
from pathlib import Path

import pytest

from clusterkit.node import journal


def test_a_round_trip(tmp_path: Path) -> None:
    book = journal.Journal(str(tmp_path / "0.0.0.jsonl"))
    book.write(journal.line("start", {"task": 1, "text": "é\n\r\u2028\"'"}), journal.line("x", {}))
    book.sync()
    first, second = journal.read(book.path)
    assert (first["k"], first["task"], first["text"]) == ("start", 1, "é\n\r\u2028\"'")
    assert second["k"] == "x"
    assert first["t"] <= second["t"]


def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    journal.Journal(str(tmp_path / "a"))
    with pytest.raises(FileExistsError):
        journal.Journal(str(tmp_path / "a"))


def test_not_a_number_survives() -> None:
    (record,) = journal.records(journal.line("log", {"v": math.nan, "w": -math.inf}))
    assert math.isnan(record["v"])
    assert record["w"] == -math.inf


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"", []),
        (b'{"k":"a"}\n{"k":"b"', ["a"]),  # the last line is still being written
        (b'{"k":"a"}\n{"k":"lo\n{"k":"b"}\n', ["a", "b"]),  # cut, then ended
        (b'{"k":"a"}\n{"k":"lo{"k":"b","v":{"k":1}}\n', ["a", "b"]),  # cut, its end not written
        (b'[1]\nnull\n7\n{"no":"kind"}\n{"k":5}\n\xff\xfe\n{"k":"b"}\n', ["b"]),
        (b"\n\n", []),
    ],
)
def test_torn_lines(tmp_path: Path, data: bytes, kinds: list[str]) -> None:
    (tmp_path / "j").write_bytes(data)
    assert [record["k"] for record in journal.read(str(tmp_path / "j"))] == kinds


def test_a_record_inside_a_text_is_none() -> None:
    cut = b'{"k":"log","values":{"text":"' + b'{\\"k\\":\\"end\\"}"}\n'
    assert list(journal.records(cut)) == []


def test_a_partial_write_ends_its_line_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(bytes(data[:5]))
        return min(5, len(data))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left") as caught:
        journal.append(3, b'{"k":"a"}\n')
    assert caught.value.errno == errno.ENOSPC
    assert written == [b'{"k":', b"\n"]


def test_many_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.touch()

    def work(number: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        for count in range(200):
            journal.append(
                descriptor, journal.line("log", {"n": number, "c": count, "x": "y" * 5000})
            )
        os.close(descriptor)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = journal.read(str(path))
    for number in range(4):
        assert [r["c"] for r in found if r["n"] == number] == list(range(200))
