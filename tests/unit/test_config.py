"""clusterkit.yaml: what it means, and that all its mistakes are told at once, where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clusterkit.cluster import config, json_schema, stored, values
from clusterkit.cluster.spec import AttachSpec, Built, Ec2Spec, LocalSpec, NspawnSpec, SshSpec
from clusterkit.errors import FileProblems, UnknownCluster, UsageError
from clusterkit.paths import Home, templates

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2sP2kzUSxOoFzfSCE4Y1Uf3sOr0PMcMxKgwhkuoQ0p"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "data")


def write(text: str, file: Path = Path("clusterkit.yaml")) -> Path:
    file.write_text(text, encoding="utf-8")
    return file.absolute()


def spec(body: str, name: str = "lab") -> Any:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return config.load(write(f"clusters:\n  {name}:\n{lines}\n"))[name]


def problems(text: str) -> list[str]:
    with pytest.raises(FileProblems) as caught:
        config.load(write(text))
    return [str(problem) for problem in caught.value.problems]


def told(body: str) -> list[str]:
    """The problems of one cluster, whose first line is line 3, without `clusters.lab.`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    found = problems(f"clusters:\n  lab:\n{lines}\n")
    return [problem.replace("clusters.lab.", "").replace("clusters.lab: ", "") for problem in found]


NSPAWN = "provider: nspawn\nworkers: {cpu: {count: 1}}\n"
EC2 = "provider: ec2\nhead: {types: t3.small}\nworkers: {gpu: {count: 2, types: [g5.xlarge]}}\n"
SSH = "provider: ssh\nhead: {host: a}\nworkers: {cpu: {hosts: [b]}}\n"


# --- what is right


def test_everything_of_nspawn(nowhere: Path) -> None:
    key = nowhere / "key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key.chmod(0o600)
    (nowhere / "requirements.txt").touch()
    found = spec(
        """\
provider: nspawn
image: ubuntu-24.04
mirror: http://mirror.example.org/ubuntu
prepared: false
images: ~/images
network: 10.111.5.0/24
user: ada
uid: 6000
login: admin
key: key
shared: nfs
accounting: false
head: {cpus: 2, memory: 2G, worker: true}
workers:
  gpu: {count: 3, cpus: 4, memory: 512m, gpus: 1, slurm: {MaxTime: 60, Default: true}}
  cpu:
    count: 0
slurm: {MaxArraySize: 5000, Prolog: null, SchedulerParameters: "bf_max=1,defer", Weight: 1e-5}
environment: {python: "3.12", requirements: requirements.txt}
timeouts: {boot: 90, setup: 1h}
"""
    )
    assert isinstance(found, NspawnSpec)
    assert found.head.model_dump() == {"cpus": 2, "memory": 2048, "worker": True}
    assert list(found.workers) == ["gpu", "cpu"]
    assert found.workers["gpu"].memory == 512
    assert found.workers["gpu"].slurm == {"MaxTime": 60, "Default": "YES"}
    assert (found.timeouts.boot, found.timeouts.setup) == (90, 3600)
    assert found.images == nowhere.parent / "home" / "images"
    assert (found.key, found.environment.requirements) == (key, nowhere / "requirements.txt")
    assert found.slurm["Prolog"] is None
    assert found.slurm["Weight"] == 1e-5


def test_the_defaults() -> None:
    found = spec(NSPAWN)
    assert found == NspawnSpec.model_validate({"workers": {"cpu": {"count": 1}}})
    assert (found.user, found.uid) == (values.default_user(), 5000)
    assert (found.image, found.shared, found.accounting) == ("debian-12", "auto", True)
    assert (found.timeouts.boot, found.timeouts.setup) == (120, 1800)
    assert found.prepared
    assert spec("provider: local") == LocalSpec()
    assert spec("provider: attach") == AttachSpec()
    assert AttachSpec().root == "~/clusterkit"


def test_ssh() -> None:
    found = spec(
        f"""\
provider: ssh
head: {{host: "me@head:2222"}}
workers:
  cpu: {{hosts: [node1, "[fe80::1]:22"]}}
host_keys: {{node1: {ED25519} a comment}}
"""
    )
    assert isinstance(found, SshSpec)
    assert found.hosts == (
        values.Host("head", "me", 2222),
        values.Host("node1"),
        values.Host("fe80::1", port=22),
    )
    assert found.workers["cpu"].count == 2
    assert found.host_keys == {"node1": ED25519}


def test_attach() -> None:
    found = spec("provider: attach\nhost: uni\nsbatch: {account: p1, cpus_per_task: 2}\nslurm:\n")
    assert found.sbatch == {"account": "p1", "cpus-per-task": "2"}


def test_sections_may_be_empty() -> None:
    body = (
        "provider: nspawn\nhead:\nslurm:\nenvironment:\ntimeouts:\nworkers:\n  a:\n    count: 1\n"
    )
    assert spec(body + "    slurm:\n") == spec(body)
    assert config.load(write("clusters:\n")) == {}


def test_a_head_that_works_needs_no_workers() -> None:
    assert spec("provider: nspawn\nhead: {worker: true}").workers == {}


@pytest.mark.parametrize("provider", ["nspawn", "ssh", "ec2", "gce", "attach", "local"])
def test_the_examples_are_right(provider: str) -> None:
    example = (templates() / "init" / f"{provider}.yaml").read_text()
    text = example.replace("NAME:", "lab:")
    assert config.load(write(text))["lab"].provider == provider
    # With every commented setting switched on they are still YAML that is understood.
    for line in ("# image:", "# memory:", "# root:", "# login:", "# region:", "# disk:", "# min:",
                 "# zones:", "# placement:", "# allow:", "# connect:"):  # fmt: skip
        text = text.replace(line, line.removeprefix("# "))
    assert config.load(write(text))["lab"].provider == provider


def test_everything_of_ec2(nowhere: Path, home: Home) -> None:
    found = spec(
        """\
provider: ec2
region: us-east-1
profile: my lab
subnet: subnet-0123456789abcdef0
image: ami-0123456789abcdef0
saved_image: off
connect: private
allow: [203.0.113.7, 198.51.100.0/24]
own_address: https://checkip.example.org/
head: {types: t3.medium, zones: us-east-1a, market: spot, disk: 100G, worker: true}
workers:
  gpu:
    count: 3
    min: 2
    types: [g5.xlarge, g4dn.xlarge]
    zones: [us-east-1b, us-east-1a]
    market: spot-then-on-demand
    disk: 50
    placement: true
    gpus: 1
    slurm: {MaxTime: 60}
  cpu: {count: 0, min: 5, types: [u7i-12tb.224xlarge, m7g.metal-48xl], zones: any, disk: 1t}
"""
    )
    assert isinstance(found, Ec2Spec)
    head, gpu, cpu = found.head, found.workers["gpu"], found.workers["cpu"]
    assert (found.region, found.profile, found.subnet) == (
        "us-east-1", "my lab", "subnet-0123456789abcdef0",
    )  # fmt: skip
    assert (found.image, found.saved_image, found.connect) == (
        "ami-0123456789abcdef0", "off", "private",
    )  # fmt: skip
    assert found.allow == ("203.0.113.7/32", "198.51.100.0/24")
    assert found.own_address == "https://checkip.example.org/"
    assert (head.types, head.zones, head.market, head.disk) == (
        ("t3.medium",), ("us-east-1a",), "spot", 100,
    )  # fmt: skip
    assert (gpu.types, gpu.zones) == (("g5.xlarge", "g4dn.xlarge"), ("us-east-1b", "us-east-1a"))
    assert (gpu.count, gpu.min, gpu.market, gpu.disk, gpu.placement, gpu.gpus) == (
        3, 2, "spot-then-on-demand", 50, True, 1,
    )  # fmt: skip
    assert (cpu.zones, cpu.disk, cpu.min) == ((), 1024, 5)
    # What it was started with is read back as it was.
    stored.write(home.cluster("lab"), found, "clusterkit.yaml")
    again = stored.read(home.cluster("lab"), lenient=False)
    assert again is not None
    assert again.spec == found


def test_the_defaults_of_ec2(home: Home) -> None:
    found = spec(EC2)
    assert isinstance(found, Ec2Spec)
    gpu = found.workers["gpu"]
    assert (found.region, found.profile, found.subnet, found.allow) == (None, None, None, ())
    assert (found.image, found.saved_image, found.connect) == ("ubuntu-24.04", "auto", "public")
    assert (found.own_address, found.timeouts.boot, found.timeouts.setup) == ("auto", 300, 1800)
    assert (found.head.market, found.head.zones, found.head.disk) == ("on-demand", (), None)
    assert (gpu.market, gpu.zones, gpu.disk, gpu.min, gpu.placement, gpu.gpus) == (
        "on-demand", (), None, None, False, 0,
    )  # fmt: skip
    assert spec(EC2 + "timeouts:\n") == found
    stored.write(home.cluster("lab"), found, "clusterkit.yaml")
    again = stored.read(home.cluster("lab"), lenient=False)
    assert again is not None
    assert again.spec == found


def test_everybody_may_come_in_only_where_it_is_written_out() -> None:
    assert spec(EC2 + "allow: 0.0.0.0/0").allow == ("0.0.0.0/0",)
    assert spec(EC2 + "allow: [10.0.0.0/8]").allow == ("10.0.0.0/8",)
    for words in ("0/0", "0.0.0.0", "0.0.0.0/00", "0.0.0.0/1", "128.0.0.0/1", "any", "::/0"):
        for written in (f"allow: '{words}'", f"allow: [203.0.113.7, '{words}']"):
            (found,) = told(EC2 + written)
            assert found.startswith("line 6: allow: ")


def test_all_problems_of_ec2_at_once() -> None:
    found = told(
        """\
provider: ec2
region: us-east-1a
image: ubuntu-2404
connect: vpn
types: [g5.xlarge]
head: {types: [], market: spot-then-on-demand}
workers:
  a: {count: 1, types: [g5], min: 0, zone: any}
  b: {count: 1, zones: [us-east-1], types: x2.large, disk: 10M}
"""
    )
    assert [one.split(": ")[:2] for one in found] == [
        ["line 4", "region"], ["line 5", "image"], ["line 6", "connect"], ["line 7", "types"],
        ["line 8", "head.types"], ["line 8", "head.market"],
        ["line 10", "workers.a.types"], ["line 10", "workers.a.min"],
        ["line 10", "workers.a.zone"],
        ["line 11", "workers.b.zones"], ["line 11", "workers.b.disk"],
    ]  # fmt: skip


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        spec(NSPAWN).user = "x"


# --- what is wrong


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("provider: nspwan", 'line 3: provider: "nspwan" is unknown; did you mean nspawn? Allow'),
        ("image: debian-12",
         "line 2: has no `provider:`; it is nspawn, ssh, ec2, gce, attach or local"),
        (NSPAWN + "wrokers: 1", "line 5: wrokers: unknown; did you mean workers? Allowed:"),
        (NSPAWN + "image: debian-11", 'line 5: image: "debian-11" is unknown; did you mean'),
        (NSPAWN + "image: 12", "line 5: image: expected debian-12, debian-13, ubuntu-22.04 or"),
        (NSPAWN + "memory: 8G", "line 5: memory: belongs in `head` or in a group of `workers`"),
        (NSPAWN + "accounting: no", 'line 5: accounting: expected true or false, not "no"'),
        (NSPAWN + "uid: '5000'", 'line 5: uid: expected a whole number, not "5000"'),
        (NSPAWN + "uid: 10", "line 5: uid: expected a number from 1000, not 10"),
        (NSPAWN + "user: root", "line 5: user: jobs do not run as root"),
        (NSPAWN + "user: Ada", "line 5: user: expected an account's name"),
        (NSPAWN + "user: slurm", "line 5: user: slurm is an account of the system's"),
        (NSPAWN + "network: 8.8.8.0/24", "line 5: network: 8.8.8.0/24 is not private"),
        (NSPAWN + "network: 10.0.0.0/8", "line 5: network: expected a private IPv4 network"),
        (NSPAWN + "network: 10.1.2.3/24", "did you mean 10.1.2.0/24?"),
        (NSPAWN + "mirror: x", "line 5: mirror: expected an address such as http://"),
        (NSPAWN + "key:", "line 5: key: nothing stands behind it: write a value, or take"),
        (NSPAWN + "key: none", "/project/none is not there"),
        (NSPAWN + "key: .", "/project is a folder, not a file"),
        (NSPAWN + "head: 3", "line 5: head: expected settings, each `name: value`"),
        (NSPAWN + "head: {memory: 8GB}", "line 5: head.memory: expected megabytes or a text such"),
        (NSPAWN + "head: {cpus: 0}", "line 5: head.cpus: expected a number from 1, not 0"),
        (NSPAWN + "timeouts: {boot: 1:2}", "line 5: timeouts.boot: expected seconds or a text"),
        (NSPAWN + "environment: {python: 3.10}", "expected a version in quotes"),
        (NSPAWN + "slurm: {ClusterName: x}", "slurm.ClusterName: cannot be set here: it follows"),
        (NSPAWN + "slurm: {authinfo: x}", "line 5: slurm.authinfo: cannot be set here: clusterkit"),
        (NSPAWN + "slurm: {A: 1, a: 2}", "line 5: slurm.a: is A once more; keep one"),
        (NSPAWN + "slurm: {A: [1]}", "line 5: slurm.A: expected one line of text without"),
        (NSPAWN + 'slurm: {A: "x # y"}', "line 5: slurm.A: expected one line of text without"),
        (NSPAWN + "slurm: [a]", "line 5: slurm: expected settings of slurm.conf"),
        ("provider: nspawn", "line 2: workers: nothing would run jobs: give a group at least one"),
        ("provider: nspawn\nworkers: {a: {count: 0}}", "line 4: workers: nothing would run jobs"),
        ("provider: nspawn\nworkers:\n  a:\n    cpus: 1", "line 5: workers.a.count: is missing:"),
        ("provider: nspawn\nworkers:\n  A: {count: 1}", "line 5: workers.A: a group's name is"),
        ("provider: nspawn\nworkers: {head: {count: 1}}", "workers.head: this name is the head's"),
        ("provider: nspawn\nworkers: {a: {count: 1}, a2: {count: 1}}", "a2: is a and a number"),
        ("provider: nspawn\nworkers: {a: {count: 1, slurm: {Nodes: x}}}", "a.slurm.Nodes: cannot"),
        ("provider: nspawn\nworkers:\n  a: {hosts: [x], count: 1}", "a.hosts: unknown; allowed: c"),
        ("provider: ssh\nworkers: {a: {hosts: [x]}}", "line 2: head: is missing: the machine"),
        ("provider: ssh\nhead: {host: a}\nworkers: {a: {hosts: []}}", "a.hosts: expected at least"),
        ("provider: ssh\nhead: {host: a}\nworkers: {a: {hosts: x}}", "a.hosts: expected a list"),
        ("provider: ssh\nhead: {host: a}\nworkers:\n  a:\n    hosts: [x,\n      X]",
         "line 8: workers.a.hosts[1]: X is there twice, first as workers.a.hosts[0]"),
        ("provider: ssh\nhead: {host: a}\nworkers: {a: {hosts: [a]}}", "a is the head already"),
        ("provider: ssh\nhead: {host: -oProxyCommand=x}\nworkers: {a: {hosts: [b]}}",
         "line 4: head.host: expected a host"),
        (SSH + "host_keys: {a: ssh-ed25519 AAAA}", "host_keys.a: expected a public host key"),
        (SSH + f"host_keys: {{z: {ED25519}}}", "host_keys.z: is no host of this cluster; they are"),
        ("provider: attach\nroot: x", "root: expected a path that begins with /, ~/ or $NAME/"),
        ("provider: attach\nslurm: {A: 1}", "line 4: slurm: cannot be set: this SLURM is somebody"),
        ("provider: attach\nsbatch: {array: 1}", "sbatch.array: clusterkit sets this option"),
        ("provider: attach\nsbatch: {exclusive: true}", "sbatch.exclusive: expected one line"),
        ("provider: attach\nworkers: {}", "line 4: workers: unknown; allowed: provider"),
        ("provider: ec2\nworkers: {a: {count: 1, types: m5.large}}", "line 2: head: is missing: "),
        ("provider: ec2\nhead: {}\nworkers: {a: {count: 1, types: m5.large}}",
         "line 4: head.types: is missing: machine types in order"),
        ("provider: ec2\nhead:\nworkers: {a: {count: 1, types: m5.large}}",
         "line 4: head: expected settings, each"),
        (EC2 + "region: us_east_1", "expected a region such as us-east-1 or eu-central-1, not"),
        (EC2 + "region: us-east-1a", "us-east-1a is a zone; its region is us-east-1, and `zones`"),
        (EC2 + "image: ubuntu-20.04", 'image: "ubuntu-20.04" is unknown; did you mean ubuntu-2'),
        (EC2 + "image: ubuntu-20.04", "dlami-gpu, or an image's id, ami-..."),
        (EC2 + "image: ami-12", 'image: "ami-12" is no id of an image'),
        (EC2 + "image: 5", "line 6: image: expected ubuntu-22.04, ubuntu-24.04, debian-12"),
        (EC2 + "subnet: vpc-12345678", "line 6: subnet: expected a subnet's id, subnet-"),
        (EC2 + "profile: 7", 'line 6: profile: expected the name of a profile, not 7; write "7"'),
        (EC2 + "connect: vpn", 'connect: "vpn" is unknown; allowed: public, private'),
        (EC2 + "saved_image: on", 'saved_image: "on" is unknown; allowed: auto, off'),
        (EC2 + "own_address: 10.0.0.0/8", "own_address: expected auto, your IPv4 address, or a"),
        (EC2 + "own_address: 0.0.0.0", "own_address: 0.0.0.0 is no address that you could be"),
        (EC2 + "own_address: https://me@x", "own_address: expected auto, your IPv4 address"),
        (EC2 + "allow: [203.0.113.7/24]", "did you mean 203.0.113.0/24 or 203.0.113.7/32?"),
        (EC2 + "allow: [1.2.3.4, 1.2.3.4/32]", "allow: 1.2.3.4/32 is there twice; keep one"),
        (EC2 + "allow: ['2001:db8::/32']", "; IPv6 is not there yet"),
        (EC2 + "allow: [1.2.3.400]", "allow: expected an IPv4 address or network such as"),
        (EC2 + "allow: 1.2.3.4/0", "allow: 1.2.3.4/0 lets in a good part of the Internet"),
        (EC2 + "types: m5.large", "types: belongs in `head` or in a group of `workers`, not here"),
        (EC2 + "market: spot", "market: belongs in `head` or in a group of `workers`, not here"),
        (EC2 + "min: 1", "line 6: min: belongs in a group of `workers`, not here"),
        (EC2 + "network: 10.1.2.0/24", "line 6: network: unknown"),
        (NSPAWN + "market: spot", "line 5: market: unknown"),
        (EC2.replace("t3.small", "t3.small, market: spot-then-on-demand"),
         'head.market: "spot-then-on-demand" is unknown; did you mean on-demand? Allowed: spot, '),
        (EC2.replace("t3.small", "t3.small, disk: 8GB"), "head.disk: expected gigabytes or a text"),
        (EC2.replace("t3.small", "t3.small, disk: 107374182400"), "expected at most 65536 (GiB)"),
        (EC2.replace("t3.small", "t3.small, min: 1"), "line 4: head.min: unknown"),
        (EC2.replace("t3.small", "t3.small, cpus: 2"), "head.cpus: the machine type decides this"),
        (EC2.replace("count: 2", "count: 2, memory: 8G"), "gpu.memory: the machine type decides"),
        (EC2.replace("t3.small", "T3.Small"), 'head.types: expected t3.small, not "T3.Small"'),
        (EC2.replace("g5.xlarge", "g5xlarge"), "expected machine types such as g5.xlarge, not"),
        (EC2.replace("[g5.xlarge]", "[]"), "workers.gpu.types: expected at least one"),
        (EC2.replace("g5.xlarge", "g5.xlarge, g5.xlarge"), "types: g5.xlarge is there twice; keep"),
        (EC2.replace("count: 2", "count: 2, min: 3"), "gpu.min: 3 cannot be enough where"),
        (EC2.replace("count: 2", "count: 2, min: 0"), "gpu.min: expected a number from 1, not 0"),
        (EC2.replace("count: 2", "count: 2, placement: 1"), "gpu.placement: expected true or"),
        (EC2.replace("count: 2", "count: 2, market: Spot"), 'gpu.market: "Spot" is unknown; did'),
        (EC2.replace("count: 2", "count: 2, zones: [any, us-east-1a]"), "; `any` stands alone"),
        (EC2.replace("count: 2", "count: 2, zones: us-east-1"), "us-east-1 is a region: its zones"),
        (EC2.replace("count: 2", "count: 2, zones: use1-az1"), "this is a zone's id, which is the"),
        (EC2.replace("count: 2", "count: 2, zones: []"), "gpu.zones: expected at least one"),
        (EC2.replace("count: 2", "count: 2, zones: us-west-2a") + "region: us-east-1",
         "line 5: workers.gpu.zones: us-west-2a is in us-west-2, and `region` says us-east-1"),
        (EC2.replace("count: 2", "count: 2, zones: [us-west-2a, eu-west-1b]"),
         "eu-west-1b is in eu-west-1, and us-west-2a (workers.gpu.zones) says us-west-2"),
        ("provider: local\nprovider: ssh", "line 4: provider: written twice, first in line 3"),
    ],
)  # fmt: skip
def test_refused(body: str, problem: str) -> None:
    (found,) = told(body)
    assert problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty: write `clusters:` with one cluster"),
        ("a: 1\nclusters:\n", "line 1: a: unknown; allowed: clusters"),
        ("lab: {provider: local}", "lab: unknown; allowed: clusters"),
        ("- a", "expected `clusters:`"),
        ("clusters: {local: {provider: attach}}", "clusters.local: is this machine's own cluster"),
        ("clusters: 5", "line 1: clusters: expected clusters, each `name:`"),
        ("clusters:\n  lab:\n", "line 2: clusters.lab: expected settings, the first of them"),
        ("clusters:\n  Lab: {provider: local}", "line 2: clusters.Lab: a cluster's name is"),
        ("clusters:\n\tlab: 1", "indent with spaces"),
    ],
)
def test_files_refused(text: str, problem: str) -> None:
    assert any(problem in found for found in problems(text))


def test_all_problems_of_all_clusters_at_once_in_the_order_of_the_file() -> None:
    found = problems(
        """\
clusters:
  a:
    provider: nspawn
    uid: x
    workers:
      gpu: {count: two, gpsu: 1}
    head: {cpus: 010}
  b:
    provider: sssh
extra: 1
"""
    )
    lines = [problem.partition(":")[0] for problem in found]
    assert lines == ["line 4", "line 6", "line 6", "line 7", "line 9", "line 10"]
    assert found[3].startswith("line 7: clusters.a.head.cpus: 010 begins with a zero")


def test_the_message_says_that_nothing_was_changed() -> None:
    with pytest.raises(FileProblems, match="1 problem, nothing was changed"):
        config.load(write("clusters: 1"))


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644, "(mode 644), and ssh refuses such a key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644, ": chmod 600 /"),
        (ED25519, 0o600, "is the public half of a key; name the private one"),
        ("hello", 0o600, "is no private key for ssh"),
    ],
)
def test_keys_refused(nowhere: Path, text: str, mode: int, problem: str) -> None:
    (nowhere / "key.pub").write_text(text)
    (nowhere / "key.pub").chmod(mode)
    (found,) = told(NSPAWN + "key: key.pub")
    assert problem in found


# --- where the file is, and which cluster is meant


def test_the_nearest_file_upwards(
    nowhere: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = nowhere / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert config.find(home) is None
    own = nowhere.parent / "home" / ".config" / "clusterkit" / "clusterkit.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert config.find(home) == own
    (nowhere / "clusterkit.yaml").touch()
    assert config.find(home) == nowhere / "clusterkit.yaml"
    (nowhere / "clusterkit.yaml").unlink()
    (deep.parent / "clusterkit.yaml").touch()
    assert config.find(home) == deep.parent / "clusterkit.yaml"


def test_a_named_file_has_to_be_there(home: Home, nowhere: Path) -> None:
    with pytest.raises(
        UsageError, match=r"CLUSTERKIT_CONFIG names .*other\.yaml, which is no file"
    ):
        config.find(Home(home.root, nowhere / "other.yaml"))
    (nowhere / "other.yaml").touch()
    assert config.find(Home(home.root, nowhere / "other.yaml")) == nowhere / "other.yaml"


def test_without_a_file_there_is_local(home: Home) -> None:
    assert config.names(home) == ["local"]
    assert config.cluster_spec(home, "local") == LocalSpec()


def test_names(home: Home) -> None:
    write("clusters:\n  b: {provider: local}\n  a: {oops\n: 1}")
    stored.write(home.cluster("old"), LocalSpec(), None)
    with pytest.raises(FileProblems):
        config.names(home)
    write("clusters:\n  b: {provider: local}\n  a: {oops: 1}\n  C: 1\n")
    assert config.names(home) == ["a", "b", "local", "old"]


def test_an_unknown_cluster(home: Home) -> None:
    with pytest.raises(UnknownCluster, match=r"there is no clusterkit\.yaml here or above"):
        config.cluster_spec(home, "lab")
    file = write(f"clusters:\n  lab: {{{', '.join(NSPAWN.splitlines())}}}")
    assert isinstance(config.cluster_spec(home, "lab"), Built)
    for ask in (config.cluster_spec, config.require):
        with pytest.raises(UnknownCluster, match="Did you mean 'lab'") as caught:
            ask(home, "labb")
        assert str(file) in str(caught.value)
        with pytest.raises(UnknownCluster, match="clusterkit init NAME"):
            ask(home, "../clusters/lab")
        ask(home, "lab")


def test_a_started_cluster_needs_no_file(home: Home) -> None:
    made = spec(NSPAWN)
    stored.write(home.cluster("lab"), made, Path("clusterkit.yaml"))
    Path("clusterkit.yaml").unlink()
    assert config.cluster_spec(home, "lab") == made
    write("clusters: [broken")
    config.require(home, "lab")
    config.require(home, "local")
    with pytest.raises(FileProblems):
        config.require(home, "other")


def test_a_started_cluster_takes_the_files_new_settings(home: Home) -> None:
    stored.write(home.cluster("lab"), spec(NSPAWN), Path("clusterkit.yaml"))
    changed = spec(NSPAWN + "uid: 6000")
    assert config.cluster_spec(home, "lab") == changed


def test_the_source_is_the_file_that_names_the_cluster(
    home: Home, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spec(NSPAWN)
    file = str(nowhere / "clusterkit.yaml")
    assert config.source(home, "lab") == stored.Stored(file, made)
    assert config.source(home, "local") == stored.Stored(None, LocalSpec())
    stored.write(home.cluster("lab"), made, file)
    other = nowhere.parent / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    spec(NSPAWN, "another")
    assert config.source(home, "lab") == stored.Stored(file, made)


def test_another_files_cluster_of_the_same_name_is_refused(
    home: Home, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.write(home.cluster("lab"), spec(NSPAWN), nowhere / "clusterkit.yaml")
    other = nowhere.parent / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    spec(NSPAWN)
    with pytest.raises(UsageError) as caught:
        config.cluster_spec(home, "lab")
    assert f"was started from {nowhere}/clusterkit.yaml, and {other}/clus" in str(caught.value)
    assert f"CLUSTERKIT_CONFIG={nowhere}/clusterkit.yaml" in str(caught.value)
    # A project folder that was moved is the same one, as long as it says the same.
    (nowhere / "clusterkit.yaml").unlink()
    assert config.cluster_spec(home, "lab") == spec(NSPAWN)
    spec(NSPAWN + "uid: 6000")
    with pytest.raises(UsageError, match="That file is gone"):
        config.cluster_spec(home, "lab")


def test_local_may_be_overridden_while_it_runs(home: Home) -> None:
    stored.write(home.cluster("local"), LocalSpec(), None)
    assert config.cluster_spec(home, "local") == LocalSpec()
    spec("provider: local\nslurm: {MaxArraySize: 5}", "local")
    assert config.cluster_spec(home, "local").slurm == {"MaxArraySize": 5}


def test_without_a_file_nothing_heavy_is_imported(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from clusterkit.paths import Home\n"
        "from clusterkit.cluster import config\n"
        f"home = Home(Path({str(tmp_path)!r}))\n"
        "assert config.names(home) == ['local']; config.require(home, 'local')\n"
        "assert not {'pydantic', 'yaml'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ})


# --- values


@pytest.mark.parametrize(
    ("written", "mebibytes"),
    [("8G", 8192), ("8g", 8192), ("8 G", 8192), ("512M", 512), ("1T", 2**20), (300, 300), ("7", 7)],
)
def test_memory(written: object, mebibytes: int) -> None:
    assert values.memory(written) == mebibytes


@pytest.mark.parametrize("written", ["8GB", "8K", "-1G", 0, "0G", 1.5, True, None, "", "G", [8]])
def test_memory_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected megabytes"):
        values.memory(written)


@pytest.mark.parametrize(
    ("written", "seconds"), [("2m", 120), ("90", 90), (90, 90), ("90s", 90), ("1h", 3600)]
)
def test_durations(written: object, seconds: int) -> None:
    assert values.duration(written) == seconds


@pytest.mark.parametrize("written", ["2 minutes", "1:30", 0, 2.5, "2w", False])
def test_durations_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected seconds"):
        values.duration(written)


@pytest.mark.parametrize(
    ("written", "gibibytes"),
    [("30G", 30), ("30 g", 30), (30, 30), ("7", 7), ("1T", 1024), ("64t", 65_536)],
)
def test_disks(written: object, gibibytes: int) -> None:
    assert values.disk(written) == gibibytes


@pytest.mark.parametrize("written", ["30GB", "512M", 0, "0G", 65_537, "65T", 1.5, True, None, [8]])
def test_disks_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"expected (gigabytes|at most 65536)"):
        values.disk(written)


@pytest.mark.parametrize("text", ["host", "me@host", "host:22", "me@10.0.0.1:22", "[fe80::1]:22"])
def test_hosts(text: str) -> None:
    assert str(values.host(text)) == text


@pytest.mark.parametrize(
    "text", ["", "-x", "a b", "a;b", "a:", "a:0", "a:x", "@a", "fe80::1", "[zz]", "a\n", 5, None]
)
def test_hosts_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"host|port|IPv6"):
        values.host(text)


def test_the_default_user_is_no_account_of_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd
    from types import SimpleNamespace

    for name, expected in (("ada", "ada"), ("root", "clusterkit"), ("DOM\\ada", "clusterkit")):
        monkeypatch.setattr(pwd, "getpwuid", lambda _, name=name: SimpleNamespace(pw_name=name))
        assert values.default_user() == expected

    def absent(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", absent)
    assert values.default_user() == "clusterkit"


# --- the schema


def test_the_schema_takes_what_the_models_take() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(json_schema.schema()))
    check = jsonschema.Draft202012Validator(schema)
    check.check_schema(schema)
    good = {
        "a": {
            "provider": "nspawn",
            "head": {"memory": "8G", "worker": True},
            "workers": {"gpu": {"count": 2, "memory": 100, "slurm": {"MaxTime": None}}},
            "timeouts": {"boot": "2m", "setup": 5},
            "slurm": None,
            "key": None,
        },
        "b": {"provider": "ssh", "head": {"host": "x"}, "workers": {"cpu": {"hosts": ["y"]}}},
        "c": {"provider": "attach", "sbatch": {"account": "x"}},
        "d": {"provider": "local", "environment": None},
        "e": {
            "provider": "ec2",
            "image": "ami-0123456789abcdef0",
            "allow": "203.0.113.7",
            "head": {"types": "t3.small", "disk": "30G"},
            "workers": {
                "gpu": {"count": 2, "types": ["g5.xlarge"], "zones": "any", "market": "spot"},
                "cpu": {"count": 2, "types": "m5.large", "zones": ["us-west-2-lax-1a"], "disk": 9},
            },
        },
    }
    check.validate({"clusters": good})
    for bad in (
        {"provider": "nspwan"},
        {"head": {}},
        {"provider": "nspawn", "wrokers": {}},
        {"provider": "nspawn", "workers": {"Big": {"count": 1}}},
        {"provider": "nspawn", "workers": {"gpu": {"count": "two"}}},
        {"provider": "nspawn", "image": "debian-11"},
        {"provider": "ssh", "workers": {}},
        {"provider": "attach", "slurm": {"a": 1}},
        {"provider": "ec2", "workers": {}},
        {"provider": "ec2", "head": {"types": []}},
        {"provider": "ec2", "head": {"types": "t3small"}},
        {"provider": "ec2", "head": {"types": "t3.small", "zones": "us-east-1"}},
        {"provider": "ec2", "head": {"types": "t3.small"}, "image": "ubuntu-20.04"},
    ):
        assert list(check.iter_errors({"clusters": {"lab": bad}})), bad
    assert list(check.iter_errors({"clutsers": {}}))


def test_the_schema_describes_every_key() -> None:
    for name, model in json_schema.schema()["$defs"].items():
        for key, field in model["properties"].items():
            assert "description" in field or key == "provider", (name, key)


# --- the page


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    models = json_schema.schema()["$defs"].values()
    keys = {key for model in models for key in model["properties"]} - {"host"}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_the_example_of_the_page_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    example, cloud = (part.partition("```")[0] for part in page.split("```yaml\n")[1:])
    assert isinstance(config.load(write(cloud))["aws"], Ec2Spec)
    found = config.load(write(example))["lab"]
    assert isinstance(found, NspawnSpec)
    assert found.workers["gpu"].gpus == 1
