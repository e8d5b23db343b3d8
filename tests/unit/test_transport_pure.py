"""What the transport makes of values: lines, options, words. And processes that outlive us."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from clusterkit.errors import CommandFailed
from clusterkit.transport import Address, archive, detached, diagnosis, options, remote

HOSTILE = ["", "two\n\n", " a  b ", "$(id)", "`id`", "'\"", "é☃", "-n", "*", "\\", "~", "!x", "!!"]
SHELLS = [name for name in ("sh", "bash", "zsh", "fish", "tcsh") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_line_means_the_same_to_every_login_shell(shell: str, tmp_path: Path) -> None:
    folder = tmp_path / "it's !a\\ é"
    folder.mkdir()
    argv = ["sh", "-c", 'printf "%s\\0" "$PWD" "$V" "$@"; exit 255', "sh", *HOSTILE]
    line = remote.line(argv, env={"V": "a 'b'\n!c"}, cwd=str(folder))
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([shell, "-c", line], capture_output=True, env=home)
    assert done.stdout.decode().split("\0")[:-1] == [str(folder), "a 'b'\n!c", *HOSTILE]
    assert done.returncode == 255
    assert remote.unmarked(done.stderr) == (b"", True)


def test_a_plain_line_can_be_read() -> None:
    assert remote.line(["squeue", "--me"], replace=True) == "exec sh -c 'exec squeue --me'"


def test_becoming_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\necho "$1 $2 $3"; shift 3; exec "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    line = remote.line(["printf", "%s", "it's"], become=True)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert done.stdout == "-n -H --\nit's"


def values(address: Address) -> list[str]:
    return options(address, Path("/tmp/c"))


def test_our_own_host_keys_are_the_only_ones() -> None:
    said = values(Address("h", "u", 2222, "/a b/%k", "/a b/known", "node-1"))
    assert said[:6] == ["-F", "none", "-p", "2222", "-l", "u"]
    for option in (
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        'UserKnownHostsFile="/a b/known"',
        "GlobalKnownHostsFile=/dev/null",
        'IdentityFile="/a b/%%k"',
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "HostKeyAlias=node-1",
        "ControlPersist=60",
    ):
        assert option in said
    assert values(Address("h")) != values(Address("g"))  # each has a connection of its own


def test_the_users_own_settings_are_left_to_them() -> None:
    said = values(Address("h", own_settings=True, jump="door"))
    assert "-F" not in said
    assert not [option for option in said if option.startswith(("StrictHost", "IdentityAgent"))]
    assert "ProxyJump=door" in said
    assert not [
        option
        for option in options(Address("h", own_settings=True), None)
        if option.startswith("ControlPath")
    ]


def test_a_jump_uses_our_key_too() -> None:
    said = values(Address("h", "u", key="/k", jump="a:23,me@[fe80::1]:24"))[-1]
    assert said.startswith("ProxyCommand=ssh -F none -p 24 -l me ")
    assert said.endswith("-W '[%h]:%p' -- fe80::1")
    assert "-p 23 -l u" in said


CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
Host key for [h]:22 has changed and you have requested strict checking.
Host key verification failed.
"""
WAY = """ssh: Could not resolve hostname door: Name or service not known
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535
"""
SAID = [
    ("ssh: connect to host h port 22: Connection refused", "silent", "nothing listens there"),
    ("ssh: connect to host h port 22: No route to host", "silent", "no way leads there"),
    ("ssh: connect to host h port 22: Connection timed out", "silent", "firewall"),
    (
        "Connection timed out during banner exchange\nConnection to 1.2.3.4 port 22 timed out",
        "silent",
        "no answer",
    ),
    ("Timeout, server h not responding.", "silent", "no answer"),
    ("client_loop: send disconnect: Broken pipe", "silent", "closed the connection"),
    ("kex_exchange_identification: read: Connection reset by peer", "silent", "booting"),
    (
        "ssh: Could not resolve hostname h: Temporary failure in name resolution",
        "silent",
        "the name h is not known",
    ),
    ("u@h: Permission denied (publickey,password).", "denied", "does not let the account u in"),
    (
        "Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures",
        "denied",
        "Too many",
    ),
    (
        'Load key "/k": error in libcrypto\nu@h: Permission denied (publickey).',
        "denied",
        "the key /k cannot be used (error in libcrypto)",
    ),
    (CHANGED, "key", "ssh-keygen -R h -f /known"),
    (
        "No ED25519 host key is known for h and you have requested strict checking.",
        "key",
        "its host key is not known",
    ),
    (
        WAY,
        "silent",
        "by the way that your ssh settings name; that failed already (ssh: Could not resolve",
    ),
    ("", "silent", "the connection to u@h broke"),
    ("Bad configuration option: x", "", "ssh: Bad configuration option: x"),
]


@pytest.mark.parametrize(("stderr", "why", "words"), SAID)
def test_what_ssh_said_in_words_that_help(stderr: str, why: str, words: str) -> None:
    error = diagnosis.unreachable(Address("h", "u", known_hosts="/known"), stderr)
    assert error.why == why
    assert words in str(error)
    assert "@@@" not in str(error)


def test_an_account_that_may_not_become_root() -> None:
    error = diagnosis.no_root(Address("h", "u"), 1, "sudo: a password is required\n")
    assert error is not None
    assert error.why == "denied"
    assert "NOPASSWD" in str(error)
    assert diagnosis.no_root(Address("h"), 1, "E: dpkg was interrupted\n") is None


def test_compressing_where_it_pays(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"some words\n" * 10_000)
    assert archive.pays([b"", text])
    assert not archive.pays([b"small"])
    assert not archive.pays([os.urandom(100_000)])
    assert not archive.pays([tmp_path / "gone"])


def test_a_stream_that_cannot_be_finished_has_no_end(tmp_path: Path) -> None:
    for packed in (False, True):
        stream = io.BytesIO()
        with pytest.raises(FileNotFoundError):
            archive.write(stream, {"a": b"1", "b": tmp_path / "gone"}, "n", packed)
        target = tmp_path / f"target {packed}"
        argv = archive.unpack(str(target), "n", packed)
        done = subprocess.run(argv, input=stream.getvalue(), capture_output=True)
        assert (done.returncode, target.exists()) == (1, False)
        assert not (tmp_path / "n").exists()


def test_a_detached_process(tmp_path: Path) -> None:
    log = tmp_path / "a log"
    argv = ["sh", "-c", 'pwd; echo "$1" >&2; exec sleep 60', "sh", "it's"]
    pid = detached.spawn(argv, log=log, cwd=tmp_path)
    try:
        ends = time.monotonic() + 5
        while "it's" not in log.read_text() and time.monotonic() < ends:
            time.sleep(0.01)
        assert log.read_text() == f"{tmp_path}\nit's\n"
        parent, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:4]
        assert int(parent) != os.getpid()  # no zombie of ours
        assert int(session) != os.getsid(0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_detached_process_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="nowhere-to-be-found"):
        detached.spawn(["nowhere-to-be-found"], log=tmp_path / "log")
    with pytest.raises(CommandFailed, match="log"):
        detached.spawn(["true"], log=tmp_path / "gone" / "log")
