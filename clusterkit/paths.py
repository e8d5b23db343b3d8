"""Where things are: the user's data folder; playbooks/ and templates/ in a checkout or a wheel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from clusterkit.errors import ClusterkitError

_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Home:
    """The user's data folder (design: "Data at rest").

    `config` is the settings file that CLUSTERKIT_CONFIG names; without it one is looked for.
    """

    root: Path
    config: Path | None = None

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


def home(override: str | None, config: str | None = None) -> Home:
    """The data folder: `override` (CLUSTERKIT_HOME) or the platform's own place for user data.

    `config` is CLUSTERKIT_CONFIG.
    """
    settings = Path(config).expanduser().absolute() if config else None
    if override:
        return Home(Path(override).expanduser().absolute(), settings)
    import platformdirs

    return Home(Path(platformdirs.user_data_dir("clusterkit", appauthor=False)), settings)


def user_settings() -> Path:
    """The user's own settings file, for clusters that belong to no project."""
    import platformdirs

    return Path(platformdirs.user_config_dir("clusterkit", appauthor=False)) / "clusterkit.yaml"


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
