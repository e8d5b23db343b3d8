"""What hosts take over from this machine, so that apt, pip and uv work in them as they do here.

Mirrors, proxies, certificates, package indexes: a company's machine reaches the world only through
its own. Read when a host is made, so that an image holds none of it.
"""

from __future__ import annotations

import configparser
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterkit.transport import Local

#: Settings of apt that say how to get to the mirrors, and nothing else.
_APT = re.compile(
    r"Acquire::(?:(?:https?|ftp|Retries|ForceIPv4|ForceIPv6|Check-)|[a-z]+::Proxy)[^ ]* ",
    re.IGNORECASE,
)
_VARIABLE = re.compile(
    r"(?:(?:https?|ftp|all|no)_proxy|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(?:PIP|UV)_(?:CERT|.*INDEX.*|FIND_LINKS|TRUSTED_HOST|PROXY|.*TIMEOUT|NATIVE_TLS|SYSTEM_CERTS"
    r"|ALLOW_INSECURE_HOST|INSECURE_HOST|PYTHON_INSTALL_MIRROR))",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"(?:file://)?(/[^\s,;'\"\]]+)")
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_SITE_CERTIFICATES = Path("/usr/local/share/ca-certificates")


@dataclass(frozen=True, slots=True)
class File:
    """A file in a host; `path` absolute."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Files for a host, and folders of this machine that they name, to be bound read-only."""

    files: tuple[File, ...] = ()
    folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def read(environment: Mapping[str, str] | None = None) -> Surroundings:
    """What this machine has of it now; `environment` is this process's own unless given."""
    variables = {
        key: value
        for key, value in (os.environ if environment is None else environment).items()
        if _VARIABLE.fullmatch(key) and "\n" not in value
    }
    files = [File("/etc/resolv.conf", _resolv_conf())]
    settings = _apt_settings()
    if settings:
        files.append(File("/etc/apt/apt.conf.d/95clusterkit-host", settings))
    files += _copies(Path("/etc/apt/auth.conf.d"), "*.conf", 0o600)
    files += _copies(_SITE_CERTIFICATES, "*.crt")
    if _BUNDLE.is_file():
        files.append(File(str(_BUNDLE), _BUNDLE.read_bytes()))
    home = Path.home()
    pip = merged_ini(
        _texts(Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf")
    )
    if pip:
        files.append(File("/etc/pip.conf", pip.encode()))
    # uv reads one file of each kind, the user's over the system's.
    uv = _texts(home / ".config/uv/uv.toml", Path("/etc/uv/uv.toml"))[:1]
    files += [File("/etc/uv/uv.toml", text.encode()) for text in uv]
    if variables:
        files.append(File("/etc/environment", environment_file(variables)))
    named = "\n".join([pip, *uv, *(v for k, v in variables.items() if k[:2] in ("PI", "UV"))])
    folders = tuple(
        Path(name) for name in dict.fromkeys(local_folders(named)) if Path(name).is_dir()
    )
    return Surroundings(tuple(files), folders, variables)


def apt_settings(dump: str) -> bytes:
    """Those lines of `apt-config dump` that say how mirrors are reached."""
    lines = [line for line in dump.splitlines() if _APT.match(line) and not line.endswith(' "";')]
    return "".join(line + "\n" for line in lines).encode()


def merged_ini(texts: list[str]) -> str:
    """Several pip.conf as one, the later ones over the earlier ones; "" when there is none."""
    whole = configparser.RawConfigParser()
    for text in texts:
        try:
            whole.read_string(text)
        except configparser.Error:  # pip would refuse it too; the hosts do without it
            continue
    if not whole.sections():
        return ""
    out = io.StringIO()
    whole.write(out)
    return out.getvalue()


def environment_file(variables: Mapping[str, str]) -> bytes:
    """/etc/environment (pam_env(8)): no shell, and no way to quote a double quote."""
    lines = [f'{key}="{value}"\n' for key, value in sorted(variables.items()) if '"' not in value]
    return "".join(lines).encode()


def local_folders(text: str) -> list[str]:
    """Paths below which an index of packages may be, as `file:///srv/simple/` or `/srv/wheels`.

    Those that a host has of its own (below /etc, /usr ...) are left out.
    """
    found = []
    for line in text.splitlines():
        for word in re.split(r"[\s,=]+", line):
            match = _FOLDER.fullmatch(word.strip("\"'[]"))
            if match and not re.match(r"/(etc|usr|bin|lib|proc|sys|dev|run|tmp|home)\b", match[1]):
                folder = match[1].rstrip("/")
                # The pages of an index (PEP 503) name files beside them: ../../files/x.whl.
                found.append(folder.removesuffix("/simple") or folder)
    return found


def _apt_settings() -> bytes:
    dumped = Local().run(["apt-config", "dump"], check=False)
    return apt_settings(dumped.text) if dumped.returncode == 0 else b""


def _resolv_conf() -> bytes:
    """This machine's name servers; not a stub on its loopback, which hosts cannot reach."""
    for file in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        try:
            text = file.read_text()
        except OSError:
            continue
        if not re.search(r"^nameserver\s+127\.", text, re.MULTILINE):
            return text.encode()
    return b""


def _copies(folder: Path, pattern: str, mode: int = 0o644) -> list[File]:
    if not folder.is_dir():
        return []
    return [
        File(str(file), file.read_bytes(), mode)
        for file in sorted(folder.glob(pattern))
        if file.is_file()
    ]


def _texts(*files: Path) -> list[str]:
    found = []
    for file in files:
        try:
            found.append(file.read_text())
        except OSError:
            continue
    return found
