"""Folders for the tests that start whole clusters."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import image_or_skip


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's own; the image of its machines is there by then."""
    image_or_skip()
    return tmp_path_factory.mktemp("user")
