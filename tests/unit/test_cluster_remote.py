"""Machines that are reached by ssh: identity, probe, judgement, inventory. No machine is needed."""

from __future__ import annotations

import json
import platform
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from clusterkit import paths
from clusterkit.cluster import access, drain, inventory, probe, remote, resize
from clusterkit.cluster.access import Identity
from clusterkit.cluster.probe import Seen
from clusterkit.cluster.providers import Ended, Machine, Plan, Provider, Say
from clusterkit.cluster.reach import Reached
from clusterkit.cluster.spec import NspawnSpec
from clusterkit.cluster.watch import Phases
from clusterkit.errors import ClusterError, CommandFailed, UsageError
from clusterkit.paths import Home
from clusterkit.transport import Address, Completed, Local

ID = "0123456789abcdef"


class Nowhere(Provider):
    """A place whose machines are only told of."""

    name = "nowhere"

    def plan(self) -> Plan:
        return Plan(())

    def create(self, plan: Plan, say: Say) -> None:
        raise AssertionError

    def machines(self) -> tuple[Machine, ...]:
        return ()

    def destroy(self, say: Say, only: Collection[str] | None = None) -> Ended:
        return Ended()

    def left(self) -> tuple[str, ...]:
        return ()


SEEN = Seen(
    system="debian 12", processor=platform.machine(),
    user="debian", root="yes", hostname="lab-head", cpus=4, memory=8000,
    free=9000, python="/usr/bin/python3", rotated=True, host_keys=("ssh-ed25519 AAAA",),
)  # fmt: skip
HEAD = Machine("lab-head", "10.0.0.2", ("head",))
WORKER = Machine("lab-cpu-1", "10.0.0.3", ("worker",), group="cpu")


def reached(machine: Machine, **changes: Any) -> Reached:
    address = Address(host=machine.address, user="debian")
    return Reached(machine, address, replace(SEEN, **{"hostname": machine.name, **changes}))


@pytest.fixture
def spec() -> NspawnSpec:
    return NspawnSpec.model_validate({"workers": {"cpu": {"count": 1}}})


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity("lab", ID, tmp_path)


@pytest.fixture
def provider(identity: Identity, spec: NspawnSpec, tmp_path: Path) -> Provider:
    return Nowhere(spec, identity, tmp_path)


# -- identity -------------------------------------------------------------------------------------


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    planned = access.identity(tmp_path / "a", "a", make=False)
    assert not (tmp_path / "a").exists()
    made = access.identity(tmp_path / "a", "a", make=True)
    assert made.id != planned.id
    assert access.identity(tmp_path / "a", "a", make=False).id == made.id
    (tmp_path / "a" / "identity.json").write_text('{"id": "../../etc"}')
    with pytest.raises(ClusterError, match="no cluster id"):
        access.read_id(tmp_path / "a")


def test_labels_say_whose_it_is(identity: Identity) -> None:
    labels = identity.labels("head")
    assert labels["clusterkit-cluster"] == "lab"
    assert labels["clusterkit-id"] == ID
    assert labels["clusterkit-role"] == "head"
    assert labels["clusterkit-owner"]


def test_keys_are_private_and_made_once(identity: Identity) -> None:
    key = identity.key
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert identity.key.read_text() == key.read_text()
    assert identity.public_key.startswith("ssh-ed25519 ")
    assert stat.S_IMODE(identity.munge_key.stat().st_mode) == 0o600
    assert len(identity.munge_key.read_bytes()) == 128


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "mine"
    key.write_text("x")
    key.chmod(0o644)
    with pytest.raises(UsageError, match=f"chmod 600 {key}"):
        _ = Identity("lab", ID, tmp_path, key).key


def test_user_data_tells_the_first_host_key_and_nothing_that_stays_secret(
    identity: Identity,
) -> None:
    text = identity.user_data("lab-head")
    assert text.startswith("#cloud-config\n")
    config = json.loads(text.partition("\n")[2])
    assert config["hostname"] == "lab-head"
    assert config["ssh_authorized_keys"] == [identity.public_key]
    assert config["ssh_keys"]["ed25519_public"] in identity.believed("lab-head")
    assert identity.key.read_text() not in text
    assert identity.user_data("lab-head") == text  # a repeated call tells the same
    identity.forget("lab-head")
    assert identity.believed("lab-head") == set()


def test_host_keys_are_believed_under_the_machines_name(identity: Identity) -> None:
    identity.believe("a", {"ssh-ed25519 ONE"})
    identity.believe("b", {"ssh-ed25519 B"})
    identity.believe("a", {"ssh-ed25519 TWO"})
    assert identity.believed("a") == {"ssh-ed25519 ONE", "ssh-ed25519 TWO"}
    identity.believe("a", {"ssh-ed25519 TWO"}, instead=True)
    assert identity.believed("a") == {"ssh-ed25519 TWO"}
    assert identity.believed("b") == {"ssh-ed25519 B"}
    address = identity.address("a", "10.0.0.2", "debian")
    assert (address.host_key_alias, address.known_hosts) == ("a", str(identity.known_hosts))


# -- probe ----------------------------------------------------------------------------------------


def test_this_machine_answers_the_probe() -> None:
    done = Local().run(["sh", "-s"], input=probe.SCRIPT.encode(), timeout=60)
    seen = probe.read(done.text)
    assert seen.cpus > 0
    assert seen.memory > 0
    assert seen.system
    assert seen.user


def test_a_machine_with_gpus_that_was_set_up() -> None:
    seen = probe.read(
        "os ubuntu 24.04\nuser ubuntu\nroot yes\nhostname gpu-1.local\ncpus 8\n"
        "memory MemTotal:       32000000 kB\nfree /dev/sda1 100000 40000 60000 40% /\n"
        "python /usr/bin/python3\nclaim 00ff lab\ndone abc\nrotated yes\ncgroup cpuset cpu memory\n"
        "slurm 23.11.4\nkey ssh-ed25519 AAAA root@gpu-1\nunit1 active\nunit2 inactive\n"
        "unit3 active\nunit4 inactive\nunit5 failed\ndevice 0\ndevice 1\n"
        "smi 0, Tesla T4, 15360\nsmi 1, Tesla T4, 15360\n"
    )
    assert (seen.hostname, seen.free, seen.claim, seen.cgroups) == (
        "gpu-1",
        60000,
        "00ff lab",
        True,
    )
    assert [gpu.type for gpu in seen.gpus] == ["tesla_t4", "tesla_t4"]
    assert seen.units["slurmd"] == "active"
    assert seen.units["mariadb"] == "failed"
    assert seen.host_keys == ("ssh-ed25519 AAAA",)


def test_a_driver_that_fails_is_told() -> None:
    seen = probe.read(
        "os debian 12\ncpus 1\nmemory MemTotal: 1000000 kB\nsmi NVIDIA-SMI has failed because\n"
    )
    assert seen.gpus == ()
    assert seen.notes == ("no GPUs: NVIDIA-SMI has failed because",)


def test_an_answer_that_was_cut_off() -> None:
    with pytest.raises(ValueError, match="not a machine's answer"):
        probe.read("os debian 12\n")


# -- judgement ------------------------------------------------------------------------------------


def test_machines_that_are_well(provider: Provider, identity: Identity) -> None:
    remote.judge(provider, identity, [reached(HEAD, claim=f"{ID} lab"), reached(WORKER)])


def test_all_reasons_are_told_at_once(provider: Provider, identity: Identity) -> None:
    machines = [
        reached(HEAD, claim="ffffffffffffffff other"),
        reached(WORKER, units={"slurmd": "active"}, free=200),
        reached(replace(WORKER, name="lab-cpu-2"), system="debian 13"),
        reached(replace(WORKER, name="lab-cpu-3"), system="fedora 40"),
    ]
    with pytest.raises(ClusterError, match="nothing was changed") as caught:
        remote.judge(provider, identity, machines)
    words = str(caught.value)
    assert "lab-head belongs to another cluster, 'other'" in words
    assert "lab-cpu-1 runs a SLURM already (slurmd)" in words
    assert "200 MiB of disk" in words
    assert "fedora 40: Debian or Ubuntu" in words
    assert "one cluster needs one release" in words


# -- what the playbooks are told ------------------------------------------------------------------


def variables(site: remote.Site) -> Mapping[str, Any]:
    every = site.inventory["all"]
    assert isinstance(every, dict)
    found: Mapping[str, Any] = every["vars"]
    return found


def test_the_inventory_of_a_site(provider: Provider, identity: Identity, spec: NspawnSpec) -> None:
    site = remote.site(provider, identity, spec, [reached(HEAD), reached(WORKER, hostname="w-1")])
    told = variables(site)
    assert told["slurm_ctld_host"] == "lab-head(10.0.0.2)"
    assert told["slurm_partitions"][0]["PartitionName"] == "cpu"
    assert told["slurm_nodes"][0]["NodeHostname"] == "w-1"
    assert told["base_hosts"][1] == {"name": "lab-cpu-1 w-1", "address": "10.0.0.3"}
    assert told["base_known_hosts"].splitlines()[0] == "lab-head,10.0.0.2 ssh-ed25519 AAAA"
    assert told["shared_home_kind"] == "nfs"
    assert told["done_digest"] == site.digest
    every = site.inventory["all"]
    assert isinstance(every, dict)
    groups = {name: list(group["hosts"]) for name, group in every["children"].items()}
    assert groups["head"] == groups["slurm_accounting"] == ["lab-head"]
    assert groups["worker"] == ["lab-cpu-1"]
    assert groups["base"] == ["lab-head", "lab-cpu-1"]
    assert groups["nvidia"] == []
    assert "python_env" not in groups
    secret = identity.munge_key.read_bytes().hex()
    assert secret not in json.dumps(site.inventory)


def test_a_head_of_another_kind_gets_its_own_uv(
    provider: Provider, identity: Identity, spec: NspawnSpec
) -> None:
    machines = [reached(HEAD, processor="riscv128"), reached(WORKER)]
    every = remote.site(provider, identity, spec, machines).inventory["all"]
    assert isinstance(every, dict)
    assert list(every["children"]["python_env"]["hosts"]) == ["lab-head"]


def test_a_site_is_done_when_every_machine_says_so(
    provider: Provider, identity: Identity, spec: NspawnSpec
) -> None:
    head = dict.fromkeys(("munge", "slurmctld", "slurmdbd", "mariadb"), "active")
    first = remote.site(provider, identity, spec, [reached(HEAD), reached(WORKER)])
    well = [
        reached(HEAD, done=first.digest, units=head),
        reached(WORKER, done=first.digest, units={"munge": "active", "slurmd": "active"}),
    ]
    assert remote.site(provider, identity, spec, well).done
    dead = [well[0], reached(WORKER, done=first.digest, units={"munge": "active", "slurmd": ""})]
    assert not remote.site(provider, identity, spec, dead).done
    other = NspawnSpec.model_validate({"workers": {"cpu": {"count": 1}}, "slurm": {"KillWait": 5}})
    assert not remote.site(provider, identity, other, well).done


def test_another_way_to_a_machine_is_no_other_set_up(
    provider: Provider, identity: Identity, spec: NspawnSpec
) -> None:
    """A cloud gives new public addresses after a pause."""
    head, worker = reached(HEAD), reached(WORKER)
    first = remote.site(provider, identity, spec, [head, worker])
    moved = replace(head, address=replace(head.address, host="198.51.100.7", port=2222))
    second = remote.site(provider, identity, spec, [moved, worker])
    assert second.digest == first.digest
    every = second.inventory["all"]
    assert isinstance(every, dict)
    assert every["hosts"]["lab-head"]["ansible_host"] == "198.51.100.7"
    elsewhere = replace(worker, machine=replace(WORKER, address="10.0.0.9"))
    assert remote.site(provider, identity, spec, [head, elsewhere]).digest != first.digest


def test_partitions_are_the_groups() -> None:
    workers = [
        Machine("a-1", "1", ("worker",), 4, 4000, group="a"),
        Machine("b-1", "2", ("worker",), 2, 6000, group="b"),
        Machine("a-2", "3", ("worker",), 4, 8000, group="a"),
    ]
    lines = inventory.partitions(workers, {"b": {"MaxTime": 60, "Default": "NO"}})
    assert [line["PartitionName"] for line in lines] == ["a", "b"]
    assert lines[0]["Nodes"] == "a-1,a-2"
    assert lines[0]["Default"] == "YES"
    assert lines[0]["DefMemPerCPU"] == 1000
    assert lines[1]["MaxTime"] == 60


# -- draining -------------------------------------------------------------------------------------


class Told(Local):
    """A head that writes down what it is told, and answers as it is given."""

    def __init__(self, answer: Callable[[Sequence[str]], str]) -> None:
        self.answer = answer
        self.argvs: list[list[str]] = []

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.argvs.append(list(argv))
        return Completed(tuple(argv), 0, self.answer(argv).encode(), b"")


def test_draining_waits_for_jobs_and_now_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_LOOK", 0.0)
    queue = iter(["7\n8\n", "8\n", ""])
    said: list[str] = []
    head = Told(lambda argv: next(queue) if argv[0] == "squeue" else "")
    drain.drain(head, ["a", "b"], "why", said.append, now=False)
    assert head.argvs[0] == ["scontrol", "update", "NodeName=a,b", "State=DRAIN", "Reason=why"]
    assert said == ["waiting for 2 jobs on a,b", "waiting for 1 job on a,b"]
    head = Told(lambda _: "1\n")
    drain.drain(head, ["a"], "why", said.append, now=True)
    assert head.argvs[-1] == ["scontrol", "update", "NodeName=a", "State=DOWN", "Reason=why"]


def test_a_node_that_slurm_does_not_know_is_drained() -> None:
    def answer(argv: Sequence[str]) -> str:
        raise CommandFailed(argv, 1, "", "slurm_update error: Invalid node name specified")

    drain.drain(Told(answer), ["a"], "why", lambda _: None, now=False)


def test_held_elements_are_told_from_waiting_ones() -> None:
    lines = [
        f"{'7_3':<40}{'1':<12}{'launch_failed_requeued_held':<64}",
        f"{'7_[4-9]':<40}{'0':<12}{'Resources':<64}",
        f"{'8':<40}{'0':<12}{'JobHeldUser':<64}",  # the user's own doing
        f"{'9':<40}{'2':<12}{'JobHeldAdmin':<64}",
    ]
    assert drain.held("\n".join(lines)) == ["7_3", "9"]


# -- resize ---------------------------------------------------------------------------------------


def test_the_groups_that_are_meant(tmp_path: Path) -> None:
    file = tmp_path / "clusterkit.yaml"
    file.write_text(
        "clusters:\n  lab: {provider: nspawn, workers: {cpu: {count: 1}}}\n"
        "  two: {provider: nspawn, workers: {a: {count: 1}, b: {count: 1}}}\n"
    )
    home = Home(tmp_path / "home", file)
    assert resize.counts(home, "lab", {"workers": 3}) == {"cpu": 3}
    assert resize.counts(home, "two", {"a": 0, "b": 2}) == {"a": 0, "b": 2}
    with pytest.raises(UsageError, match="no group 'gpu'; 'two' has a, b"):
        resize.counts(home, "two", {"gpu": 1})
    with pytest.raises(UsageError, match="no worker would be left"):
        resize.counts(home, "lab", {"cpu": 0})
    with pytest.raises(UsageError, match="no machines that could become more"):
        resize.counts(home, "local", {})


def test_a_group_is_not_made_smaller_than_what_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "clusterkit.yaml"
    file.write_text(
        "clusters:\n  aws:\n    provider: ec2\n    head: {types: t3.small, worker: true}\n"
        "    workers: {gpu: {count: 4, min: 2, types: g5.xlarge}}\n"
    )
    home = Home(tmp_path / "home", file)
    assert resize.counts(home, "aws", {"gpu": 2}) == {"gpu": 2}
    assert resize.counts(home, "aws", {"gpu": 0}) == {"gpu": 0}
    with pytest.raises(UsageError, match="gpu=1: in the settings, `min` of gpu is 2; lower that"):
        resize.counts(home, "aws", {"gpu": 1})


# -- expected times -------------------------------------------------------------------------------


def test_phases_remember_how_long_they_took(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.cluster("lab").mkdir(parents=True)
    told: list[tuple[str, float | None]] = []

    class Watcher:
        def phase(self, name: str, expected: float | None) -> None:
            told.append((name, expected))

        def host(self, name: str, doing: str) -> None: ...

        def say(self, line: str) -> None: ...

    def work() -> None:
        with Phases(Watcher(), home, "lab") as phase:
            phase("create")
            phase("reach")

    work()
    work()
    assert [name for name, _ in told] == ["create", "reach"] * 2
    assert told[0][1] is None
    assert told[2][1] is not None
    (home.cluster("lab") / "timings.json").write_text("{broken")
    work()  # a comfort only


# -- the roles' own description of what they are told ---------------------------------------------


@pytest.mark.parametrize(
    "role", ["base", "munge", "slurm", "slurm_accounting", "shared_home", "nvidia"]
)
@pytest.mark.parametrize("machine", ["lab-head", "lab-cpu-1"])
def test_the_roles_are_told_what_they_ask_for(
    role: str, machine: str, provider: Provider, identity: Identity, spec: NspawnSpec
) -> None:
    """In the plays themselves it is not checked: that would cost a process on each machine."""
    file = paths.playbooks() / "roles" / role / "meta" / "argument_specs.yml"
    options = yaml.safe_load(file.read_text())["argument_specs"]["main"]["options"]
    for option in options.values():
        option.pop("description", None)
    site = remote.site(provider, identity, spec, [reached(HEAD), reached(WORKER)])
    every = site.inventory["all"]
    assert isinstance(every, dict)
    told = {**every["vars"], **every["hosts"][machine]}
    # Which daemons a play starts stands in the play.
    told["slurm_daemons"] = ["slurmd"]
    known = {name: value for name, value in told.items() if name in options}
    assert ArgumentSpecValidator(options).validate(known).error_messages == []
