"""Where things are: the user's data folder; playbooks/ and templates/ in a checkout or a wheel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clusterkit.errors import ClusterkitError

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Home:
    """The user's data folder (design: "Data at rest")."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "clusterkit.db"

    def cluster(self, name: str) -> Path:
        return self.root / "clusters" / name

    def experiment(self, experiment: str) -> Path:
        return self.root / "experiments" / experiment

    def prepared(self) -> Home:
        """The same, after making sure that the folder is there and can be written.

        Raises ClusterkitError with the folder's name and what to do when it cannot.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ClusterkitError(
                f"the data folder {self.root} cannot be made: {error.strerror}. "
                "Set CLUSTERKIT_HOME to a folder you may write to."
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise ClusterkitError(
                f"the data folder {self.root} cannot be written to. "
                "Set CLUSTERKIT_HOME to a folder you may write to."
            )
        return self


def home(override: str | None) -> Home:
    """The data folder: `override` (CLUSTERKIT_HOME) or the platform's own place for user data."""
    if override:
        return Home(Path(override).expanduser().absolute())
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("clusterkit", appauthor=False)))


def _shipped(folder: str) -> Path:
    inside = _PACKAGE / "_data" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def playbooks() -> Path:
    return _shipped("playbooks")


def templates() -> Path:
    return _shipped("templates")


def package() -> Path:
    """The folder of the package itself: what is shipped to a cluster is taken from here."""
    return _PACKAGE
