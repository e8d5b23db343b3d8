"""What a launch's machines are told, and who is believed when they arrive. No machine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusterkit.cluster import access, probe, reach, takeover
from clusterkit.cluster.access import Identity
from clusterkit.cluster.probe import Seen
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.spec import NspawnSpec
from clusterkit.errors import ClusterError, Unreachable
from clusterkit.transport import Address, Completed, Local

ID = "0123456789abcdef"


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity("lab", ID, tmp_path / "lab", created="20261121T134118Z")


# -- identity -------------------------------------------------------------------------------------


def test_an_identity_knows_since_when_it_is(tmp_path: Path) -> None:
    made = access.identity(tmp_path, "lab", make=True)
    assert re.fullmatch(r"\d{8}T\d{6}Z", made.created)
    assert made.labels("head")["clusterkit-created"] == made.created
    assert access.identity(tmp_path, "lab", make=False) == made


def test_an_identity_of_an_older_clusterkit_is_as_old_as_its_file(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    file.write_text(json.dumps({"id": ID}))
    moment = datetime(2026, 11, 1, 12, 30, 5, tzinfo=UTC).timestamp()
    os.utime(file, (moment, moment))
    assert access.identity(tmp_path, "lab", make=True).created == "20261101T123005Z"
    assert json.loads(file.read_text()) == {"id": ID}  # nothing is rewritten


def test_an_adopted_identity_is_that_of_the_labels(tmp_path: Path) -> None:
    access.write_identity(tmp_path, ID, "20261101T123005Z")
    assert access.identity(tmp_path, "lab", make=True).created == "20261101T123005Z"
    assert access.read_id(tmp_path) == ID
    with pytest.raises(ClusterError, match="no cluster's id"):
        access.write_identity(tmp_path, "../../etc")


def test_an_id_is_kept_once(tmp_path: Path) -> None:
    planned = access.identity(tmp_path, "lab", make=False)
    access.keep(planned)
    access.keep(replace(planned, id="f" * 16))
    assert access.read_id(tmp_path) == planned.id


# -- a launch -------------------------------------------------------------------------------------


def config(text: str) -> dict[str, object]:
    head, _, rest = text.partition("\n")
    assert head == "#cloud-config"
    found: dict[str, object] = json.loads(rest)
    return found


def test_machines_of_a_launch_share_user_data_without_a_name(identity: Identity) -> None:
    text = identity.launch_user_data("00ff")
    told = config(text)
    assert "hostname" not in told
    assert told["preserve_hostname"] is True
    assert told["ssh_authorized_keys"] == [identity.public_key]
    assert told["allow_public_ssh_keys"] is False  # the cloud's key pair may be another owner's
    assert identity.launch_user_data("00ff") == text
    assert identity.launch_user_data("00fe") != text
    assert identity.key.read_text() not in text
    assert not identity.known_hosts.exists()  # nobody is believed by that alone

    identity.believe("lab-gpu-1", {"ssh-ed25519 OLD"})
    identity.believe_first("00ff", ["lab-gpu-1", "lab-gpu-2"])
    keys = told["ssh_keys"]
    assert isinstance(keys, dict)
    for name in ("lab-gpu-1", "lab-gpu-2"):
        assert identity.believed(name) == {keys["ed25519_public"]}
    assert identity.believed("lab-gpu-3") == set()


@pytest.mark.parametrize(
    ("files", "after"),
    [
        ({}, {}),
        (
            {"": "[InstanceSetup]\nset_host_keys = true\nset_multiqueue = true\n"},
            {"": "[InstanceSetup]\nset_host_keys = false\nset_multiqueue = true\n"},
        ),
        (
            {"": "[Daemons]\nx = true", ".distro": "[InstanceSetup]\n set_host_keys=true\n"},
            {
                "": "[Daemons]\nx = true\n[InstanceSetup]\nset_host_keys = false\n",
                ".distro": "[InstanceSetup]\nset_host_keys = false\n",
            },
        ),
    ],
    ids=["no agent", "one file", "several files"],
)
def test_googles_agent_leaves_host_keys_alone(
    identity: Identity, tmp_path: Path, files: dict[str, str], after: dict[str, str]
) -> None:
    """Its default is to replace them when it first runs in a machine: as of a saved image, too."""
    told = config(identity.launch_user_data("00ff"))["bootcmd"]
    assert isinstance(told, list)
    [script] = [one[2] for one in told if one[:2] == ["sh", "-c"]]
    place = tmp_path / "instance_configs.cfg"
    for end, text in files.items():
        place.with_name(place.name + end).write_text(text)
    script = script.replace("/etc/default/instance_configs.cfg", str(place))
    for _ in range(2):  # at every boot
        Local().run(["sh", "-c", script.replace("/usr/bin/google_guest_agent", "/nowhere")])
    found = {one.name.removeprefix(place.name): one.read_text() for one in tmp_path.glob("inst*")}
    assert found == after
    assert config(identity.user_data("lab-head"))["bootcmd"] == told
    adopted = config(identity.adoption_user_data("lab-head", "n"))["bootcmd"]
    assert isinstance(adopted, list)
    assert adopted[: len(told)] == told


def test_a_launch_of_another_computer_is_not_believed(identity: Identity) -> None:
    with pytest.raises(ClusterError, match="on another one"):
        identity.believe_first("00ff", ["lab-head"])
    assert not (identity.folder / "hosts").exists()


def test_user_data_of_a_single_machine_name_it(identity: Identity) -> None:
    told = config(identity.user_data("lab-head"))
    assert (told["hostname"], told["preserve_hostname"]) == ("lab-head", False)


# -- who is believed ------------------------------------------------------------------------------


class Place(Provider):
    name = "ec2"

    def plan(self) -> Plan:
        raise AssertionError

    def create(self, plan: Plan, say: Say) -> None:
        raise AssertionError

    def machines(self) -> tuple[Machine, ...]:
        return ()

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        raise AssertionError

    def left(self) -> tuple[str, ...]:
        raise AssertionError


class Here(Place):
    name = "nspawn"


MACHINE = Machine("lab-head", "10.0.0.2", ("head",), login="ubuntu")
ANSWER = (
    "os ubuntu 24.04\nuser {user}\nroot yes\nhostname {name}\ncpus 2\nrotated {rotated}\n"
    "memory MemTotal: 4000000 kB\nkey ssh-ed25519 THERE\n"
)


class Answers:
    """ssh, to machines that let one account in; what was sent where."""

    def __init__(self, login: str = "ubuntu", name: str = "ip-10-0-0-2", rotated: str = "") -> None:
        self.login, self.name, self.rotated = login, name, rotated
        self.sent: list[tuple[Address, str]] = []

    def __call__(self, address: Address, **_: object) -> Answers:
        self.address = address
        return self

    def run(self, argv: list[str], *, input: bytes = b"") -> Completed:  # noqa: A002
        self.sent.append((self.address, input.decode()))
        if self.address.user != self.login:
            raise Unreachable("denied", "denied")
        text = ""
        if input.decode() == probe.SCRIPT:
            text = ANSWER.format(user=self.login, name=self.name, rotated=self.rotated)
        elif "ssh-keygen" in input.decode():
            text = "ssh-ed25519 NEW comment\n"
        return Completed(tuple(argv), 0, text.encode(), b"")


def arrive(
    monkeypatch: pytest.MonkeyPatch,
    identity: Identity,
    ssh: Answers,
    machine: Machine = MACHINE,
    kind: type[Provider] = Place,
) -> reach.Reached:
    monkeypatch.setattr(reach, "Ssh", ssh)
    spec = NspawnSpec.model_validate({"workers": {"cpu": {"count": 1}}})
    provider = kind(spec, identity, identity.folder)
    (found,) = reach.reach(provider, identity, [machine], 5, lambda *_: None, lambda: [machine])
    return found


def test_a_machine_that_was_made_elsewhere_is_not_even_asked(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = Answers()
    with pytest.raises(ClusterError, match="its host key is not known") as caught:
        arrive(monkeypatch, identity, ssh)
    assert "`clusterkit adopt lab`" in str(caught.value)
    assert "`clusterkit start lab --replace`" in str(caught.value)
    with pytest.raises(ClusterError, match="`clusterkit stop lab` ends it") as caught:
        arrive(monkeypatch, identity, ssh, kind=Here)
    assert "adopt" not in str(caught.value)
    assert ssh.sent == []


def test_a_machine_gets_its_name_with_its_host_key(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.believe("lab-head", {"ssh-ed25519 FIRST"})
    ssh = Answers()
    found = arrive(monkeypatch, identity, ssh)
    assert found.seen.hostname == "lab-head"
    assert found.seen.host_keys == ("ssh-ed25519 NEW",)
    assert identity.believed("lab-head") == {"ssh-ed25519 NEW"}
    script = ssh.sent[-1][1]
    assert script.index("name=lab-head") < script.index("/etc/hostname")
    assert script.index("/etc/hostname") < script.index("echo yes > /var/lib/clusterkit/rotated")


def test_a_machine_that_lost_its_name_gets_it_again(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.believe("lab-head", {"ssh-ed25519 THERE"})
    ssh = Answers(rotated="yes")
    assert arrive(monkeypatch, identity, ssh).seen.hostname == "lab-head"
    assert "ssh-keygen" not in "".join(text for _, text in ssh.sent)
    assert identity.believed("lab-head") == {"ssh-ed25519 THERE"}
    ssh = Answers(rotated="yes", name="lab-head")
    arrive(monkeypatch, identity, ssh)
    assert len(ssh.sent) == 1  # the probe


def test_the_public_address_is_used_where_there_is_one(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.believe("lab-head", {"ssh-ed25519 FIRST"})
    public = identity.address("lab-head", "198.51.100.7", "")
    ssh = Answers(login="admin")
    machine = replace(MACHINE, login="", reach=public)
    found = arrive(monkeypatch, identity, ssh, machine)
    assert {address.host for address, _ in ssh.sent} == {"198.51.100.7"}
    assert {address.host_key_alias for address, _ in ssh.sent} == {"lab-head"}
    assert found.address == replace(public, user="admin")
    assert "" not in {address.user for address, _ in ssh.sent}  # never one's own account's name
    assert found.notes == ()
    ssh = Answers(login="admin", rotated="yes", name="lab-head")
    found = arrive(monkeypatch, identity, ssh, replace(MACHINE, reach=public))
    assert found.notes == ("lab-head: ubuntu was refused, 'admin' worked",)


def test_a_login_that_all_refuse_names_the_key(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.believe("lab-head", {"ssh-ed25519 FIRST"})
    monkeypatch.setattr(reach, "_FRESH", 0.0)
    public = identity.address("lab-head", "198.51.100.7", "ubuntu")
    with pytest.raises(ClusterError, match=re.escape(str(identity.key))):
        arrive(monkeypatch, identity, Answers(login="x"), replace(MACHINE, reach=public))


def test_a_machine_that_was_adopted_elsewhere(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.believe("lab-head", {"ssh-ed25519 FORMER"})

    class Changed(Answers):
        def run(self, argv: list[str], *, input: bytes = b"") -> Completed:  # noqa: A002
            raise Unreachable("REMOTE HOST IDENTIFICATION HAS CHANGED: ssh-keygen -R", "key")

    with pytest.raises(ClusterError, match="adopted on another computer meanwhile") as caught:
        arrive(monkeypatch, identity, Changed())
    assert "ssh-keygen" not in str(caught.value)  # nobody shall believe just any new key


def test_sudo_may_complain_about_a_name_that_nobody_resolves(tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: unable to resolve host ip-10-0-0-2' >&2\necho yes\n")
    sudo.chmod(0o755)
    identify = tmp_path / "id"  # nobody is root
    identify.write_text('#!/bin/sh\n[ "$1" = -u ] && echo 1000 || echo somebody\n')
    identify.chmod(0o755)
    done = subprocess.run(
        ["sh", "-s"], input=probe.SCRIPT, capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert isinstance(probe.read(done.stdout), Seen)
    assert probe.read(done.stdout).root == "yes"


# -- scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [takeover.SCRIPT, takeover.FORMER_SCRIPT, reach._name("a"), reach._TAKE_KEY]
)
def test_scripts_are_shell(script: str) -> None:
    for shell in ("sh", "bash"):
        checked = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    if program := shutil.which("shellcheck"):
        argv = [program, "--shell=sh", "--severity=warning", "-"]
        checked = subprocess.run(argv, input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_former_keys_go_and_nobody_elses(tmp_path: Path) -> None:
    """The part of the takeover that changes other accounts, with accounts of this test's own."""
    state, home = tmp_path / "state", tmp_path / "home of jobs" / ".ssh"
    state.mkdir()
    home.mkdir(parents=True)
    (state / "former-keys").write_text("AAAAold1\nAAAAold2\n")
    keys = home / "authorized_keys"
    keys.write_text(
        "# mine\nssh-ed25519 AAAAmine me\nssh-ed25519 AAAAold1 clusterkit lab\n"
        'command="echo login as debian" ssh-rsa AAAAold2 clusterkit lab\n'
        "ssh-rsa AAAAold2 laptop\n"
    )
    keys.chmod(0o640)
    (tmp_path / "getent").write_text(f"#!/bin/sh\necho 'jobs:x:5000:5000::{home.parent}:/bin/sh'\n")
    (tmp_path / "getent").chmod(0o755)
    script = takeover.FORMER_SCRIPT.replace("/var/lib/clusterkit", str(state))
    for _ in range(2):  # killed anywhere, it is run again
        subprocess.run(
            ["sh", "-c", script, "sh", "ssh-ed25519 AAAAnew clusterkit lab"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True,
        )  # fmt: skip
        assert keys.read_text() == (
            "# mine\nssh-ed25519 AAAAmine me\nssh-ed25519 AAAAnew clusterkit lab\n"
        )
    assert keys.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in home.iterdir()] == ["authorized_keys"]
