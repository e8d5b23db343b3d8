"""Folders for the tests that start whole clusters."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's own. Its path has no comma or colon, which overlayfs could not use."""
    return tmp_path_factory.mktemp("user")
