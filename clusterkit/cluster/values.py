"""Values of clusterkit.yaml: what somebody writes to what the program uses.

Each function takes a value as YAML gives it and raises ValueError with what is expected instead;
whoever knows the line and the key puts them in front.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A cluster's name: it begins host names, folders and the names of resources.
CLUSTER_NAME: Final = r"[a-z][a-z0-9-]{0,30}"
#: A worker group's name: a SLURM partition and a part of host names.
GROUP_NAME: Final = r"[a-z][a-z0-9]{0,15}"
#: useradd's own rule on Debian, and what sudo, NFS and SLURM take without quoting.
ACCOUNT: Final = r"[a-z_][a-z0-9_-]{0,31}"

MEMORY_WORDS: Final = "megabytes or a text such as 512M, 8G or 1T"
DURATION_WORDS: Final = "seconds or a text such as 90s, 2m or 1h"
DISK_WORDS: Final = "gigabytes or a text such as 30G or 1T"

#: GiB; what EC2's gp3 and GCE's disks go up to. A number of bytes or MiB is beyond it.
LARGEST_DISK: Final = 65_536

_MIB: Final = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}
_GIB: Final = {"": 1, "g": 1, "t": 1024}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
#: Who may come in where it is written out, and only there.
EVERYBODY: Final = "0.0.0.0/0"
_WIDEST: Final = 8
_SYSTEM_ACCOUNTS: Final = frozenset(
    {"daemon", "bin", "sys", "sync", "man", "mail", "www-data", "backup", "nobody", "sshd", "munge",
     "slurm", "mysql", "messagebus", "systemd-network", "systemd-resolve"}
)  # fmt: skip
_PRIVATE: Final = tuple(
    map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
)


def unknown(word: str, allowed: Collection[str]) -> str:
    """What to say of a word that is not one of `allowed`."""
    near = difflib.get_close_matches(word, allowed, n=1)
    meant = f"unknown; did you mean {near[0]}? Allowed" if near else "unknown; allowed"
    return f"{meant}: {', '.join(allowed)}"


def either(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: object) -> str:
    """A value as it may stand in a message: short, as it is written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _measured(value: object, units: Mapping[str, int], words: str) -> int:
    """A whole number from 1, with or without one of `units`."""
    number = 0
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,12})\s*([A-Za-z]?)", value)
        if found is not None:
            number = int(found[1]) * units.get(found[2].lower(), 0)
    if not 0 < number < 2**40:
        raise ValueError(f"expected {words}, not {shown(value)}")
    return number


def memory(value: object) -> int:
    """MiB of `8G`, `512M` or a number of MiB."""
    return _measured(value, _MIB, MEMORY_WORDS)


def duration(value: object) -> int:
    """Seconds of `2m`, `90` or a number of seconds."""
    return _measured(value, _SECONDS, DURATION_WORDS)


def disk(value: object) -> int:
    """GiB of `30G`, `1T` or a number of GiB."""
    found = _measured(value, _GIB, DISK_WORDS)
    if found > LARGEST_DISK:
        raise ValueError(f"expected at most {LARGEST_DISK} (GiB), not {shown(value)}")
    return found


def text(value: object, words: str = "a text") -> str:
    """One line of text that is not empty."""
    if isinstance(value, str) and value and not re.search(r"[\x00-\x1f\x7f]", value):
        return value
    hint = f'; write "{shown(value)}" for text' if isinstance(value, int | float) else ""
    raise ValueError(f"expected {words}, not {shown(value)}{hint}")


def version(value: object) -> str:
    """A version of Python, such as "3.12"; `3.10` without quotes is the number 3.1."""
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004 - pydantic's contract
            'expected a version in quotes, such as "3.12": without them it is a number'
        )
    if isinstance(value, str) and re.fullmatch(r"3\.\d{1,2}(\.\d{1,2})?", value):
        return value
    raise ValueError(f'expected a version of Python in quotes, such as "3.12", not {shown(value)}')


def path(value: object, folder: Path | None) -> Path:
    """A path; `~` is the user's home, a relative one begins at `folder`. Absolute afterwards."""
    if isinstance(value, Path):
        return value
    words = text(value, "a path")
    try:
        expanded = Path(words).expanduser()
    except RuntimeError as error:  # ~nobody-of-that-name
        raise ValueError(f"there is no account for {words.split('/', maxsplit=1)[0]}") from error
    return (folder or Path.cwd()) / expanded


def cluster_name(value: str) -> str:
    """A cluster's name."""
    if re.fullmatch(CLUSTER_NAME, value):
        return value
    raise ValueError(
        "a cluster's name is a small letter and at most 30 more small letters, digits or hyphens"
    )


def group_name(value: str) -> str:
    """A worker group's name."""
    if not re.fullmatch(GROUP_NAME, value):
        raise ValueError(
            "a group's name is a small letter and at most 15 more small letters or digits; it "
            "names a SLURM partition and hosts"
        )
    reasons = {
        "head": "the head's own",
        "default": "a word of slurm.conf (PartitionName=DEFAULT)",
        "localhost": "every machine's own",
        "all": "a word of SLURM and of Ansible",
    }
    if value in reasons:
        raise ValueError(f"this name is {reasons[value]}; give the group another one")
    return value


def account(value: object) -> str:
    """An account's name on Linux."""
    if isinstance(value, str) and re.fullmatch(ACCOUNT, value):
        return value
    raise ValueError(
        f"expected an account's name (small letters, digits, _ and -, at most 32), "
        f"not {shown(value)}"
    )


def user(value: object) -> str:
    """The account that jobs run as: a person's, not the system's."""
    name = account(value)
    if name == "root":
        raise ValueError("jobs do not run as root; name another account, or leave `user` out")
    if name in _SYSTEM_ACCOUNTS:
        raise ValueError(f"{name} is an account of the system's; name another one")
    return name


def default_user() -> str:
    """The caller's login name; "clusterkit" for root and where a name would not do on a cluster."""
    import os
    import pwd

    try:
        return user(pwd.getpwuid(os.getuid()).pw_name)
    except (KeyError, ValueError):
        return "clusterkit"


def network(value: object) -> str:
    """A private IPv4 network of 256 addresses, such as 10.111.5.0/24."""
    words = "expected a private IPv4 network such as 10.111.5.0/24"
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    try:
        found = ipaddress.IPv4Network(value)
    except ValueError as error:
        address, slash, bits = value.partition("/")
        beginning = address.rpartition(".")[0]
        meant = f"; did you mean {beginning}.0/24?" if slash and bits == "24" else ""
        raise ValueError(f"{words}, not {shown(value)}{meant}") from error
    if found.prefixlen != 24:
        raise ValueError(f"{words}: its 24 says how many bits are fixed, not /{found.prefixlen}")
    if not any(found.subnet_of(private) for private in _PRIVATE):
        raise ValueError(
            f"{value} is not private; take one from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
        )
    return str(found)


def cidr(value: object) -> str:
    """A network that may come in, such as 203.0.113.0/24; one address becomes a /32.

    All of IPv4 only as 0.0.0.0/0, and no other way to open the door to most of the world.
    """
    words = "expected an IPv4 address or network such as 203.0.113.7 or 203.0.113.0/24"
    if value == EVERYBODY:
        return EVERYBODY
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    if not re.fullmatch(r"[0-9.]+(/[0-9]{1,2})?", value):
        hint = "; IPv6 is not there yet" if ":" in value else ""
        raise ValueError(f"{words}, not {shown(value)}{hint}")
    try:
        found = ipaddress.IPv4Network(value, strict=False)
    except ValueError as error:
        raise ValueError(f"{words}, not {shown(value)}") from error
    if found.prefixlen < _WIDEST:
        raise ValueError(
            f"{value} lets in a good part of the Internet; name smaller networks, or write "
            f"{EVERYBODY} where everybody is meant"
        )
    if found.network_address.is_unspecified:
        raise ValueError(f"{value} is nobody's address; {EVERYBODY} means everybody")
    address = value.partition("/")[0]
    if str(found.network_address) != address:
        raise ValueError(f"{words}, not {shown(value)}; did you mean {found} or {address}/32?")
    return str(found)


def own_address(value: object) -> str:
    """`auto`, one's own IPv4 address, or the address of a page that answers with it."""
    words = "expected auto, your IPv4 address, or a page that answers with it, https://..."
    if value == "auto":
        return "auto"
    if not isinstance(value, str):
        raise ValueError(f"{words}, not {shown(value)}")  # noqa: TRY004 - pydantic's contract
    if re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
        return value
    try:
        found = ipaddress.IPv4Address(value)
    except ValueError as error:
        hint = "; more networks are named in `allow`" if "/" in value else ""
        raise ValueError(f"{words}, not {shown(value)}{hint}") from error
    if found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local:
        raise ValueError(f"{value} is no address that you could be seen under from elsewhere")
    return str(found)


def mirror(value: object) -> str:
    """The address of a package mirror."""
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
        return value
    raise ValueError(
        f"expected an address such as http://deb.debian.org/debian, not {shown(value)}"
    )


@dataclass(frozen=True, slots=True)
class Host:
    """`[user@]name[:port]`; `user` "" and `port` 0 where ssh chooses."""

    name: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return (
            (f"{self.user}@" if self.user else "") + name + (f":{self.port}" if self.port else "")
        )


def host(value: object) -> Host:
    """`[user@]name[:port]` taken apart. An IPv6 address stands in brackets."""
    words = "expected a host: a name or an address that ssh knows, as host, user@host or host:22"
    found = (
        re.fullmatch(
            r"(?:([A-Za-z0-9_][A-Za-z0-9_.\\-]{0,63})@)?"
            r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))(?::([0-9]{1,5}))?",
            value,
        )
        if isinstance(value, str)
        else None
    )
    if found is None:
        ipv6 = isinstance(value, str) and value.count(":") > 1
        hint = "; an IPv6 address stands in brackets, [fe80::1]" if ipv6 else ""
        raise ValueError(f"{words}, not {shown(value)}{hint}")
    port = int(found[4] or 0)
    if found[4] and not 0 < port < 65536:
        raise ValueError(f"{port} is no port; one is from 1 to 65535")
    if found[2]:
        try:
            ipaddress.IPv6Address(found[2])
        except ValueError as error:
            raise ValueError(f"{found[2]} is no IPv6 address") from error
    return Host(found[2] or found[3], found[1] or "", port)


def host_text(value: object) -> str:
    """The same, checked and left as it is."""
    return str(host(value))


def host_key(value: object) -> str:
    """A public host key, `ssh-ed25519 AAAA...`, as a .pub file has it; the comment is dropped."""
    words = "expected a public host key such as ssh-ed25519 AAAAC3Nza..."
    kind, _, rest = text(value, words.removeprefix("expected ")).partition(" ")
    blob = rest.strip().partition(" ")[0]
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{words}; this one is cut off or damaged") from error
    length = int.from_bytes(data[:4], "big")
    if not blob or data[4 : 4 + length] != kind.encode():
        raise ValueError(f"{words}; its letters do not belong to {shown(kind)}")
    return f"{kind} {blob}"


def remote_path(value: object) -> str:
    """A path on a machine elsewhere: from its root, the home or another folder named there."""
    words = text(value, "a path there, such as ~/clusterkit or $SCRATCH/clusterkit")
    if re.match(r"/|~/.|\$[A-Za-z_{]", words):
        return words
    raise ValueError(f"expected a path that begins with /, ~/ or $NAME/, not {shown(value)}")


def absolute_path(value: object) -> str:
    """A path on a machine elsewhere, from its root."""
    words = text(value, "a path there, such as /etc/slurm/slurm.conf")
    if words.startswith("/"):
        return words
    raise ValueError(f"expected a path that begins with /, not {shown(value)}")


#: What people call a provider -> its name.
_MEANT: Final = {"aws": "ec2", "amazon": "ec2", "google": "gce", "gcp": "gce", "gcloud": "gce"}


def provider_meant(name: str) -> str:
    """The provider that somebody means who calls a cluster so; "" for other names."""
    word = name.lower()
    return _MEANT.get(word, word if word in ("nspawn", "ssh", "ec2", "gce", "attach") else "")
