"""What ssh said, in words that help. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from clusterkit.errors import Unreachable
from clusterkit.transport.address import Address

_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_NO_KEY = re.compile(r"No .* host key is known for (\S+)")
_OPEN_KEY = re.compile(r"Permissions (\d+) for '(.+)' are too open")
_MISSING_KEY = re.compile(r"no such identity: (.+): ")
_BAD_KEY = re.compile(r'Load key "(.+)": (.+)')
_SAYS_USER = re.compile(r'[Pp]lease login as the user "?([\w-]+)"?')
_SUDO = re.compile(
    r"^(sudo: .+|.*sudo: (command )?not found|.+ is not in the sudoers file.*)$", re.MULTILINE
)
# What the last ssh says when the one before it has failed.
_OURS = re.compile(r"kex_exchange_identification|Connection closed by UNKNOWN")
#: What ssh and its shared connection say, and no command does.
_NOISE = re.compile(
    rb"^(mux_client_[^\r\n]*|Shared connection to [^\r\n]* closed\.|"
    rb"ControlSocket [^\r\n]* already exists, disabling multiplexing|"
    rb"Control socket connect\([^\r\n]*)\r?\n",
    re.MULTILINE,
)
#: (what ssh says, what it means and what to do); the first that fits.
_SILENT = (
    (
        re.compile(r"Could not resolve hostname ([^:]+)"),
        "the name {0} is not known. Is it spelled right, and is this machine online?",
    ),
    (
        re.compile(r"Connection refused"),
        "nothing listens there. Has it booted, does its ssh server run, is the port right?",
    ),
    (
        re.compile(r"No route to host|Network is unreachable|Host is down"),
        "no way leads there. Is it switched on, and is this machine in its network (VPN)?",
    ),
    (
        re.compile(r"timed out|Timeout, server .* not responding"),
        "no answer. Is it switched on, and does a firewall let this machine's address in?",
    ),
    (
        re.compile(
            r"Connection reset|closed by remote host|Connection closed|kex_exchange_identification|"
            r"Broken pipe|banner exchange|read from master failed"
        ),
        "it closed the connection. Is it booting, or shutting down? Try again in a moment.",
    ),
)


def unreachable(address: Address, stderr: str) -> Unreachable:
    """The error for an ssh that could not connect, by what it said."""
    words = said(stderr)
    way = _way(address, stderr)
    if way is not None:
        return way
    key = _key_trouble(address, stderr)
    if key is not None:
        return key
    if "Permission denied" in stderr or "Too many authentication failures" in stderr:
        return Unreachable(_denied(address, stderr), "denied")
    for pattern, meaning in _SILENT:
        found = pattern.search(stderr)
        if found is not None:
            return Unreachable(
                f"{address} cannot be reached: {meaning.format(*found.groups())} (ssh: {words})",
                "silent",
            )
    if not words:
        return Unreachable(f"the connection to {address} broke", "silent")
    return Unreachable(f"{address} cannot be reached: ssh: {words}", "")


def turned_away(address: Address, code: int, output: str) -> Unreachable:
    """The error for a machine that let us in and then would not run even `true`."""
    words = said(output) or f"exit code {code}"
    other = _SAYS_USER.search(output)
    hint = f" The account to log in with is {other[1]}." if other else ""
    return Unreachable(f"{address} runs no commands for this account: {words}.{hint}", "denied")


def no_root(address: Address, code: int, stderr: str) -> Unreachable | None:
    """The error for an account that may not become root; None when sudo did not say so."""
    if code not in (1, 127):
        return None
    found = _SUDO.search(stderr)
    if found is None:
        return None
    return Unreachable(
        f"{address}: this account may not become root without a password ({found[1]}). Let it by a "
        "line `USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d, or log in as another one.",
        "denied",
    )


def without_noise(stderr: bytes) -> bytes:
    """Standard error without what ssh says about shared connections."""
    return _NOISE.sub(b"", stderr)


def said(stderr: str | Iterable[str]) -> str:
    """What ssh said last, in one line, without its drawings and warnings."""
    lines = [line.strip() for line in (stderr.splitlines() if isinstance(stderr, str) else stderr)]
    told = [
        line
        for line in lines
        if line and not line.startswith(("@", "debug", "Warning:", "** ", "rsync"))
    ]
    return "; ".join(told[-3:]).removeprefix("ssh: ").rstrip(".")


def way_failed(stderr: str) -> bool:
    """Whether it was not the machine itself, but a jump or a proxy on the way to it."""
    return re.search("UNKNOWN port 65535|stdio forward", stderr) is not None


def _way(address: Address, stderr: str) -> Unreachable | None:
    """A jump on the way that failed: its own words come first, those of ours last."""
    if not way_failed(stderr):
        return None
    why = ""
    if "Host key verification failed" in stderr:
        why = "key"
    elif "Permission denied" in stderr:
        why = "denied"
    elif any(pattern.search(stderr) for pattern, _ in _SILENT):
        why = "silent"
    way = f"by way of {address.jump}" if address.jump else "by the way that your ssh settings name"
    lines = [line for line in stderr.splitlines() if not _OURS.match(line)]
    return Unreachable(
        f"{address} cannot be reached {way}; that failed already (ssh: {said(lines)})",
        why,
    )


def _key_trouble(address: Address, stderr: str) -> Unreachable | None:
    name = address.host_key_alias or address.host
    if address.port not in (0, 22) and not address.host_key_alias:
        name = f"[{address.host}]:{address.port}"
    file = address.known_hosts or "~/.ssh/known_hosts"
    if _CHANGED in stderr:
        where = ["-f", address.known_hosts] if address.known_hosts else []
        return Unreachable(
            f"{address} shows another host key than the one that is known: it is another machine, "
            f"or somebody in between. If you know why it changed, forget the old key with "
            f"`{shlex.join(['ssh-keygen', '-R', name, *where])}`.",
            "key",
        )
    unknown = _NO_KEY.search(stderr)
    if unknown is not None:
        how = "" if address.known_hosts else f" Connect once by hand: `ssh {_by_hand(address)}`."
        return Unreachable(
            f"{address}: its host key is not known ({file} has none for {name}), so it could be "
            f"any machine.{how}",
            "key",
        )
    if "Host key verification failed" in stderr:
        return Unreachable(
            f"{address}: its host key is not known to you ({said(stderr)}). Connect once by hand, "
            f"`ssh {_by_hand(address)}`, compare the fingerprint it shows, and say yes.",
            "key",
        )
    return None


def _denied(address: Address, stderr: str) -> str:
    account = f"the account {address.user}" if address.user else "this account"
    asked = f"{address.host} does not let {account} in"
    too_open = _OPEN_KEY.search(stderr)
    if too_open is not None:
        return (
            f"{asked}: ssh did not use the key {too_open[2]}, since others can read it "
            f"(mode {too_open[1]}). `chmod 600 {too_open[2]}` mends it."
        )
    missing = _MISSING_KEY.search(stderr)
    if missing is not None:
        return f"{asked}: the key {missing[1]} is not there."
    bad = _BAD_KEY.search(stderr)
    if bad is not None:
        return f"{asked}: the key {bad[1]} cannot be used ({bad[2].strip()})."
    with_key = f" with the key {address.key}" if address.key else ""
    return (
        f"{asked}{with_key} (ssh: {said(stderr)}). Is the account right, and does its "
        "~/.ssh/authorized_keys have the public half of the key?"
    )


def _by_hand(address: Address) -> str:
    port = f"-p {address.port} " if address.port not in (0, 22) else ""
    user = f"{address.user}@" if address.user else ""
    return f"{port}{user}{address.host}"
