"""What ssh alone can get wrong: connections that break, machines that are not who they were."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sshd import SSHD, Server, server

from clusterkit.errors import TransportError, Unreachable
from clusterkit.transport import Address, Ssh, control_folder
from clusterkit.transport.address import socket_of

pytestmark = pytest.mark.skipif(SSHD is None, reason="no sshd here (Debian: openssh-server)")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Server]:
    with server(tmp_path / "machine") as running:
        yield running


@pytest.fixture
def ssh(machine: Server) -> Iterator[Ssh]:
    made = Ssh(machine.address)
    yield made
    made.close()


def master(ssh: Ssh) -> int:
    """The process id of the shared connection."""
    done = subprocess.run(
        ["ssh", *ssh.options, "-O", "check", ssh.address.host], capture_output=True, check=True
    )
    return int(re.search(rb"pid=(\d+)", done.stderr)[1])  # type: ignore[index]


def test_all_share_one_connection(ssh: Ssh, machine: Server, tmp_path: Path) -> None:
    for _ in range(5):
        ssh.run(["true"])
    Ssh(machine.address).run(["true"])
    ssh.put({"a": b"1"}, str(tmp_path / "put"))
    ssh.push(tmp_path / "put", str(tmp_path / "pushed"))
    with ssh.stream(["echo", "1"]) as stream:
        stream.read()
    subprocess.run(["ssh", *ssh.options, ssh.address.host, "true"], check=True)  # as Ansible does
    assert machine.logins() == 1
    assert ssh.alive()
    ssh.close()
    assert not ssh.alive()
    ssh.close()  # once more: nothing to do


def test_many_at_once_begin_with_one_connection(ssh: Ssh, machine: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: ssh.run(["echo", str(n)]), range(24)))
    assert [one.text for one in done] == [f"{n}\n" for n in range(24)]
    assert {one.stderr for one in done} == {b""}
    assert machine.logins() == 1


def test_more_at_once_than_one_connection_carries(ssh: Ssh) -> None:
    """sshd's MaxSessions is 10; the others connect by themselves, and nobody hears of it."""
    with ThreadPoolExecutor(14) as pool:
        argv = ["sh", "-c", "sleep 1; echo done"]
        done = list(pool.map(lambda n: ssh.run(argv), range(14)))
    assert {(one.stdout, one.stderr) for one in done} == {(b"done\n", b"")}


def test_processes_at_once_leave_no_second_connection(ssh: Ssh, machine: Server) -> None:
    program = f"from clusterkit.transport import *; Ssh({machine.address!r}).run(['true'])"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [one.wait(timeout=30) for one in started] == [0] * 4
    assert machine.logins() == 1


def test_a_connection_that_was_killed_is_made_anew(ssh: Ssh, machine: Server) -> None:
    ssh.run(["true"])
    first = master(ssh)
    os.kill(first, signal.SIGKILL)  # leaves its socket behind
    assert ssh.run(["echo", "again"]).text == "again\n"
    assert ssh.run(["true"]).stderr == b""
    # The first command may have met the dying connection, and have connected by itself.
    assert machine.logins() in (2, 3)
    assert master(ssh) != first


def test_a_connection_that_breaks_under_a_command(ssh: Ssh) -> None:
    ssh.run(["true"])
    killer = threading.Timer(0.5, os.kill, (master(ssh), signal.SIGKILL))
    killer.start()
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"the connection to .* broke") as caught:
        ssh.run(["sleep", "20"])
    assert caught.value.why == "silent"
    assert time.monotonic() - begun < 5


def test_a_way_that_was_shut_is_mended_and_tried_once_more(machine: Server) -> None:
    machine.stop()
    heard: list[Unreachable] = []

    def opened(error: Unreachable) -> bool:
        heard.append(error)
        machine.start()
        return True

    with_way = Ssh(machine.address, mend=opened)
    try:
        assert with_way.run(["echo", "in"]).text == "in\n"
        assert [one.why for one in heard] == ["silent"]
        with_way.run(["true"])
        assert len(heard) == 1
    finally:
        with_way.close()


def test_a_way_that_cannot_be_mended_leaves_the_error(machine: Server) -> None:
    machine.stop()
    with pytest.raises(Unreachable, match="nothing listens there"):
        Ssh(machine.address, mend=lambda _: False).run(["true"])


def test_a_connection_that_breaks_under_a_stream(ssh: Ssh) -> None:
    stream = ssh.stream(["sh", "-c", "echo 1; exec cat"])
    output = stream.__enter__()
    assert output.readline() == b"1\n"
    os.kill(master(ssh), signal.SIGKILL)
    assert output.read() == b""
    with pytest.raises(Unreachable):
        stream.__exit__(None, None, None)


def test_a_machine_that_is_switched_off(ssh: Ssh, machine: Server) -> None:
    ssh.run(["true"])
    machine.stop()
    for _ in range(2):
        with pytest.raises(Unreachable, match="Has it booted") as caught:
            ssh.run(["true"])
        assert caught.value.why == "silent"
    with pytest.raises(Unreachable), ssh.stream(["true"]):
        pass
    with pytest.raises(Unreachable):
        ssh.put({"a": b""}, "/nowhere/a")
    machine.start()
    assert ssh.run(["echo", "back"]).text == "back\n"


def test_a_machine_that_hangs_up() -> None:
    """It boots, or has too many connections already."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(Unreachable, match="it closed the connection") as caught:
            Ssh(Address("127.0.0.1", port=listener.getsockname()[1])).run(["true"])
    assert caught.value.why == "silent"


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(Unreachable, match=r"the name nowhere\.invalid is not known") as caught:
        Ssh(Address("nowhere.invalid")).run(["true"])
    assert caught.value.why == "silent"


def test_a_wrong_key(machine: Server, tmp_path: Path) -> None:
    other = tmp_path / "other key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    with pytest.raises(Unreachable, match=f"with the key {other} .*authorized_keys") as caught:
        Ssh(replace(machine.address, key=str(other))).run(["true"])
    assert caught.value.why == "denied"
    assert f"the account {machine.address.user}" in str(caught.value)


def test_a_key_that_others_can_read(machine: Server) -> None:
    machine.key.chmod(0o644)
    with pytest.raises(Unreachable, match=rf"`chmod 600 {machine.key}` mends it") as caught:
        Ssh(machine.address).run(["true"])
    assert caught.value.why == "denied"


def test_a_key_that_is_not_there(machine: Server, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="gone is not there") as caught:
        Ssh(replace(machine.address, key=str(tmp_path / "gone"))).run(["true"])
    assert caught.value.why == "denied"


def test_another_machine_at_the_same_address(ssh: Ssh, machine: Server) -> None:
    ssh.run(["true"])
    machine.new_host_key()
    with pytest.raises(Unreachable, match="another host key than the one") as caught:
        ssh.run(["true"])
    assert caught.value.why == "key"
    forget = re.search(r"`(ssh-keygen .*)`", str(caught.value))
    assert forget is not None
    subprocess.run(forget[1], shell=True, check=True, capture_output=True)  # what it says works
    with pytest.raises(Unreachable, match="its host key is not known") as caught:
        ssh.run(["true"])
    assert caught.value.why == "key"


def test_a_machine_that_wants_another_account(machine: Server) -> None:
    """Cloud images answer so to root."""
    authorized = machine.folder / "authorized_keys"
    says = 'command="echo Please login as the user \\"admin\\" rather than root.; exit 142" '
    authorized.write_text(says + authorized.read_text())
    with pytest.raises(Unreachable, match="account to log in with is admin") as caught:
        Ssh(machine.address).run(["true"])
    assert caught.value.why == "denied"


def test_a_program_that_is_killed_while_it_connects(ssh: Ssh, machine: Server) -> None:
    program = f"from clusterkit.transport import *; Ssh({machine.address!r}).run(['sleep', '9'])"
    for seconds in (0.15, 0.25, 0.35, 0.5):
        started = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
        time.sleep(seconds)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        assert ssh.run(["echo", "well"]).text == "well\n"
        ssh.close()


def test_a_put_whose_connection_breaks_leaves_nothing(ssh: Ssh, tmp_path: Path) -> None:
    ssh.run(["true"])
    fifo = tmp_path / "source" / "fifo"
    fifo.parent.mkdir()
    large = tmp_path / "source" / "large"
    with large.open("wb") as file:
        file.truncate(1 << 32)
    killer = threading.Timer(0.5, os.kill, (master(ssh), signal.SIGKILL))
    killer.start()
    with pytest.raises(Unreachable):
        ssh.put({"small": b"1", "large": large}, str(tmp_path / "target" / "it"))
    ends = time.monotonic() + 10
    while list((tmp_path / "target").iterdir()) and time.monotonic() < ends:
        time.sleep(0.05)  # the far side sees the end of its input and tidies up
    assert list((tmp_path / "target").iterdir()) == []


def test_by_way_of_another_machine(machine: Server) -> None:
    address = replace(machine.address, jump=f"127.0.0.1:{machine.port}")
    with pytest.raises(Unreachable, match="by way of 127") as caught:
        Ssh(address).run(["true"])
    assert caught.value.why == "key"  # the way's own host key is believed just as strictly
    public = Path(f"{machine.host_key}.pub").read_text()
    with machine.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{machine.port} {public}")
    ssh = Ssh(address)
    assert ssh.run(["echo", "arrived"]).text == "arrived\n"
    assert machine.logins() == 2
    ssh.close()


def test_interactive_passes_the_exit_code(ssh: Ssh) -> None:
    assert ssh.interactive(["sh", "-c", 'exit "$CODE"'], env={"CODE": "7"}) == 7


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0 or shutil.which("sudo") is None, reason="needs root and sudo")
def test_as_root_by_sudo(machine: Server, tmp_path: Path) -> None:
    ssh = Ssh(replace(machine.address, user=""), become=True)
    argv = ["sh", "-c", 'echo "$SUDO_USER $X"; exit 255']
    done = ssh.run(argv, env={"X": "it's"}, cwd=str(tmp_path), check=False)
    assert (done.text, done.stderr, done.returncode) == ("root it's\n", b"", 255)
    ssh.put({"a": b"1"}, str(tmp_path / "put"))
    ssh.push(tmp_path / "put", str(tmp_path / "pushed"))
    ssh.pull(str(tmp_path / "pushed"), tmp_path / "pulled")
    assert (tmp_path / "pulled" / "a").read_bytes() == b"1"
    ssh.close()


def test_sockets_have_short_private_paths(tmp_path: Path) -> None:
    folder = control_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    far = Address("h" * 200, key="k" * 300)
    assert len(str(socket_of(far, folder))) + 17 < 108
    (tmp_path / f"clusterkit-ssh-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(TransportError, match="not a folder of yours"):
        control_folder(tmp_path)
