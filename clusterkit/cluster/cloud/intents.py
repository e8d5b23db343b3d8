"""Launches that were asked for, on disk before they are sent: launches/<token>.json.

A process that was killed while it launched machines leaves the request here. The next one asks what
became of it, or sends it again, byte for byte and with its token; it never launches twice. Answered
requests stay until all that was wished for is there: they tell what an attempt has begun.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from clusterkit.cluster.access import write_private
from clusterkit.cluster.cloud.api import Candidate, Instance, Launch
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.errors import ClusterError

#: For so long a request may be sent again; an older one is only looked up. A cloud remembers tokens
#: for a day (EC2) or more, and shows what it launched within minutes.
REPEATABLE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Intent:
    """A request and when it was made; `ids` of its machines once its answer was heard."""

    launch: Launch
    made: datetime
    ids: tuple[str, ...] | None = None

    @property
    def open(self) -> bool:
        return self.ids is None


class Intents:
    """Those of one cluster; only its owner can read them (a first host key is in each)."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self._folder = folder / "launches"
        self._clock = clock or Clock()

    def open(self, launch: Launch) -> None:
        self._write(Intent(launch, self._clock.now()))

    def close(self, launch: Launch, made: Sequence[Instance]) -> None:
        """Its answer was heard: these are its machines, without those that are known to be gone."""
        known = _read(self._file(launch.token))
        begun = known.made if known is not None else self._clock.now()
        self._write(Intent(launch, begun, tuple(instance.id for instance in made)))

    def repeatable(self, intent: Intent) -> bool:
        """Whether it may be sent again, and what it made may not be shown everywhere yet."""
        return abs(self._clock.now() - intent.made) < REPEATABLE

    def drop(self, token: str) -> None:
        self._file(token).unlink(missing_ok=True)

    def all(self) -> list[Intent]:
        """The oldest first. Raises ClusterError for a file that cannot be understood."""
        try:
            files = sorted(self._folder.glob("*.json"))
        except OSError as error:
            raise ClusterError(f"{self._folder} cannot be read: {error.strerror}") from error
        found = [intent for intent in map(_read, files) if intent is not None]
        return sorted(found, key=lambda intent: intent.made)

    def forget(self) -> None:
        """All of them; after a proven end."""
        for file in self._folder.glob("*"):
            file.unlink(missing_ok=True)
        if self._folder.is_dir():
            self._folder.rmdir()

    def _write(self, intent: Intent) -> None:
        said = {
            "launch": asdict(intent.launch),
            "made": intent.made.isoformat(),
            "ids": intent.ids,
        }
        write_private(self._file(intent.launch.token), json.dumps(said, indent=1).encode())

    def _file(self, token: str) -> Path:
        return self._folder / f"{token}.json"


def _read(file: Path) -> Intent | None:
    """None when it is gone: another thread's launch was dropped meanwhile."""
    try:
        said = json.loads(file.read_text())
        launch = said["launch"]
        launch["candidate"] = Candidate(**launch["candidate"])
        launch["numbers"] = tuple(launch["numbers"])
        ids = said["ids"]
        return Intent(
            Launch(**launch),
            datetime.fromisoformat(said["made"]),
            None if ids is None else tuple(ids),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(
            f"{file} cannot be understood ({error}). It says what was asked of the cloud; look "
            "there for machines of this cluster before you remove it."
        ) from error
