"""A real ssh server of the test's own: this user, a loopback port, its own keys, nothing of $HOME.

No name here begins with `test_`: it is imported by the contract suite (and may be by others).
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clusterkit.transport import Address

SSHD = shutil.which("sshd") or next(
    (path for path in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(path).exists()), None
)


class Server:
    """An sshd in `folder`; `address` reaches it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.key = _make_key(folder / "user key")  # awkward on purpose
        self.host_key = _make_key(folder / "host_key")
        self.known_hosts = folder / "known hosts"
        self.log = folder / "sshd.log"
        authorized = folder / "authorized_keys"
        authorized.write_text(Path(f"{self.key}.pub").read_text())
        self.believe(Path(f"{self.host_key}.pub").read_text())
        self.config = folder / "sshd_config"
        self.config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {authorized}\nPidFile none\nUsePAM no\n"
            "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"PermitRootLogin prohibit-password\nSetEnv HOME={home} ZDOTDIR={home}\n"
            "MaxStartups 100\nPermitUserRC no\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address(
            host="127.0.0.1",
            user=getpass.getuser(),
            port=self.port,
            key=str(self.key),
            known_hosts=str(self.known_hosts),
            host_key_alias="machine",
        )

    def believe(self, public: str) -> None:
        self.known_hosts.write_text(f"machine {public}")

    def logins(self) -> int:
        """How many connections it has let in so far."""
        return self.log.read_text().count("Accepted publickey")

    def new_host_key(self) -> None:
        """Another machine at the same address."""
        self.stop()
        self.host_key.unlink()
        Path(f"{self.host_key}.pub").unlink()
        _make_key(self.host_key)
        self.start()

    def start(self) -> None:
        assert SSHD is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation's
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log.open("ab"),
            start_new_session=True,
        )
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        self.stop()
        raise AssertionError(f"sshd does not listen: {self.log.read_text()}")

    def stop(self) -> None:
        """The listener and its connections, as a machine that is switched off."""
        if self._process is None:
            return
        connections = _children(self._process.pid)
        self._process.terminate()
        self._process.wait(timeout=10)
        for pid in connections:
            _kill(pid)
        self._process = None


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A running server; it is stopped afterwards whatever happens."""
    home = folder / "home"
    home.mkdir(parents=True)
    made = Server(folder, home)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _children(pid: int) -> list[int]:
    try:
        direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, direct) for one in (child, *_children(child))]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, 15)


def _make_key(file: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)], check=True
    )
    return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
