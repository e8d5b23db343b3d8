"""Where an image's packages come from: the archive, its keys, and the file that tells apt so."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster.nspawn.releases import RELEASES


@dataclass(frozen=True, slots=True)
class Sources:
    """The archives of one release."""

    codename: str
    mirror: str
    security: str
    keyring: str  # the file in /usr/share/keyrings
    keyring_package: str
    components: tuple[str, ...]
    script: str  # debootstrap's own name for releases of this kind

    @property
    def keyring_file(self) -> Path:
        return Path("/usr/share/keyrings") / self.keyring

    def text(self) -> str:
        """A .sources file (sources.list(5), deb822)."""
        suites = {self.mirror: [self.codename, f"{self.codename}-updates"]}
        suites.setdefault(self.security, []).append(f"{self.codename}-security")
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {' '.join(names)}\n"
            f"Components: {' '.join(self.components)}\n"
            f"Signed-By: {self.keyring_file}\n"
            for uri, names in suites.items()
        )


def sources(image: str, mirror: str | None) -> Sources:
    """The archives of an image; `mirror` None: those that this machine uses, if of its kind."""
    codename = RELEASES[image]
    kind = image.partition("-")[0]
    here = own(_texts(), kind) if mirror is None and _kind_here() == kind else {}
    if kind == "debian":
        main = mirror or here.get("main", "http://deb.debian.org/debian")
        security = here.get("security", "http://deb.debian.org/debian-security")
        keyring, package = "debian-archive-keyring.gpg", "debian-archive-keyring"
        return Sources(codename, main, security, keyring, package, ("main",), "sid")
    main = mirror or here.get("main", "http://archive.ubuntu.com/ubuntu")
    security = here.get("security", main)
    keyring, package = "ubuntu-archive-keyring.gpg", "ubuntu-archive-keyring"
    return Sources(codename, main, security, keyring, package, ("main", "universe"), "gutsy")


def own(texts: Iterable[str], kind: str) -> dict[str, str]:
    """The "main" and "security" archive of this machine's sources, of either format."""
    found: dict[str, str] = {}
    for text in texts:
        for uri, suites in _entries(text):
            for suite in suites:
                match = re.fullmatch(r"[a-z]+(-security|-updates)?", suite)
                if match and (kind in uri or match[1]):
                    found.setdefault("security" if match[1] == "-security" else "main", uri)
    return found


def _entries(text: str) -> Iterable[tuple[str, list[str]]]:
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            yield match[1].rstrip("/"), [match[2]]
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            for uri in fields.get("URIs", "").split():
                yield uri.rstrip("/"), fields.get("Suites", "").split()


def _kind_here() -> str:
    """ "debian", "ubuntu" or another distribution (os-release(5))."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    match = re.search(r'^ID="?([^"\n]*)"?$', text, re.MULTILINE)
    return match[1] if match else ""


def _texts() -> list[str]:
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [
        file.read_text(errors="replace")
        for file in files
        if file.suffix in (".list", ".sources") and file.is_file()
    ]
