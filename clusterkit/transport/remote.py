"""An argv, an environment and a folder as the one line that ssh hands to the far login shell.

ssh joins its words with spaces and gives them to whatever shell the account has. So the line is
the same to all of them (sh, bash, zsh, fish, csh): a POSIX sh that gets its script as one word in
single quotes, with nothing in it that any of these shells would touch there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

#: Said on standard error after a command's own exit code 255, which is ssh's word for a connection
#: that broke: this way the two can be told apart.
OWN_255 = b"clusterkit: 255 is the command's own exit code\n"

# Untouched within single quotes by every shell; in csh `!` and newlines are not, in fish \\ and \'.
_HARMLESS = frozenset(map(chr, range(32, 127))) - set("'\\!")


def line(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    become: bool = False,
    replace: bool = False,
) -> str:
    """The line that runs `argv`; with `become` as root.

    Exit code: the command's; 128 + the signal for one that was killed; 127 when `cwd` is not there.
    With `replace` nothing stands between ssh and the command, and a 255 is not marked.
    """
    words = list(argv)
    if env:
        words = ["env", *(f"{name}={value}" for name, value in env.items()), *words]
    command = shlex.join(words)
    script = f"CDPATH= cd -- {shlex.quote(cwd)} || exit 127\n" if cwd is not None else ""
    if replace:
        script += f"exec {command}"
    else:
        mark = OWN_255.decode().strip()
        script += (
            f"{command}\ncode=$?\n[ $code -ne 255 ] || echo {shlex.quote(mark)} >&2\nexit $code"
        )
    return shell(script, become=become)


def shell(script: str, *, become: bool = False) -> str:
    """The line that runs a POSIX sh script; it must not end with a newline."""
    if become:
        script = f"exec sudo -n -H -- sh -c {shlex.quote(script)}"
    if set(script) <= _HARMLESS:
        return f"exec sh -c '{script}'"
    return f"""exec sh -c 'eval "$(printf %b "$1")"' sh '{_escaped(script)}'"""


def login(env: Mapping[str, str] | None, *, become: bool) -> str:
    """The line that begins a session for a person: a login shell."""
    words = [f"{name}={value}" for name, value in (env or {}).items()]
    if become:
        return shell(f"exec sudo -n -i env {shlex.join(words)} sh -c {_LOGIN}")
    return shell(f"exec env {shlex.join(words)} sh -c {_LOGIN}")


_LOGIN = shlex.quote('exec "${SHELL:-/bin/sh}" -l')


def unmarked(stderr: bytes) -> tuple[bytes, bool]:
    """Standard error without the mark, and whether it was there."""
    if stderr.endswith(OWN_255):
        return stderr[: -len(OWN_255)], True
    return stderr, False


def _escaped(script: str) -> str:
    """As printf's %b reads it: octal for every byte that is not harmless."""
    return "".join(
        char if char in _HARMLESS else "".join(f"\\0{byte:03o}" for byte in char.encode())
        for char in script
    )
