"""The images that hosts can have, as the settings name them, and their archives' code names."""

from __future__ import annotations

from types import MappingProxyType

RELEASES = MappingProxyType(
    {
        "debian-12": "bookworm",
        "debian-13": "trixie",
        "ubuntu-22.04": "jammy",
        "ubuntu-24.04": "noble",
    }
)
