"""What Google's own command line was told: its project and region, as it keeps them.

cloud.google.com/sdk/docs/configurations: the variables CLOUDSDK_*, then the active configuration's
file below ~/.config/gcloud. It need not be installed.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Told:
    """ "": nothing was told."""

    project: str
    region: str


def told(environment: Mapping[str, str], home: Path) -> Told:
    """A file that cannot be understood tells nothing."""
    folder = Path(environment.get("CLOUDSDK_CONFIG") or home / ".config" / "gcloud")
    name = environment.get("CLOUDSDK_ACTIVE_CONFIG_NAME") or _read(folder / "active_config").strip()
    kept = configparser.ConfigParser(interpolation=None)
    try:
        kept.read_string(_read(folder / "configurations" / f"config_{name or 'default'}"))
    except configparser.Error:
        kept.clear()

    def first(section: str, key: str, *variables: str) -> str:
        named = (environment.get(one, "") for one in variables)
        return next(filter(None, named), "") or kept.get(section, key, fallback="")

    return Told(
        first("core", "project", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT"),
        first("compute", "region", "CLOUDSDK_COMPUTE_REGION"),
    )


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
