"""Which words are places on a cluster."""

from __future__ import annotations

import pytest

from clusterkit.cli.copying import Place, place


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("lab:data/a b", Place("lab", "", "data/a b")),
        ("lab:", Place("lab", "", ".")),
        ("lab:/abs/x:y", Place("lab", "", "/abs/x:y")),
        ("lab/lab-gpu-1:/var/log", Place("lab", "lab-gpu-1", "/var/log")),
        ("data", None),
        ("./lab:data", None),
        ("/tmp/a:b", None),
        ("Über:b", None),
        ("lab/../x:y", None),
    ],
)
def test_place(word: str, expected: Place | None) -> None:
    assert place(word) == expected
