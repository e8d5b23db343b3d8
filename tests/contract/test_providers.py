"""What every provider promises (clusterkit.cluster.providers). A new one is one more parameter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from doubles.aws import Aws
from doubles.gce import Gce

from clusterkit.cluster import access, inventory, packages, providers
from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.nspawn import base, cgroup, host, needs, network
from clusterkit.cluster.nspawn.network import Network
from clusterkit.cluster.providers import Machine, Provider
from clusterkit.cluster.spec import Ec2Spec, GceSpec, LocalSpec, NspawnSpec, Spec, SshSpec
from clusterkit.transport import Ssh

IMAGES = Path("/var/tmp/clusterkit-e2e")
PATIENCE = 300.0
NO_MACHINES = pytest.mark.skipif(
    bool(needs.missing()), reason="no nspawn machines here: " + "; ".join(needs.missing())
)


def local_spec(_folder: Path) -> Spec:
    return LocalSpec()


def nspawn_spec(_folder: Path) -> Spec:
    return NspawnSpec.model_validate(
        {"workers": {"cpu": {"count": 1}}, "images": str(IMAGES), "prepared": False}
    )


def ssh_spec(folder: Path) -> Spec:
    """A head that is reached with a key and a host key which the settings name."""
    there = json.loads((folder / "machine.json").read_text())
    return SshSpec.model_validate(
        {
            "key": there["key"],
            "login": "debian",
            "head": {"host": there["address"], "worker": True},
            "host_keys": {there["address"]: there["host_key"]},
        }
    )


def ec2_spec(_folder: Path) -> Spec:
    return Ec2Spec.model_validate(
        {
            "region": "us-east-1",
            "connect": "private",
            "own_address": "192.0.2.7",
            "head": {"types": ["t3.medium"]},
            "workers": {"cpu": {"count": 1, "types": ["c5.large"], "market": "spot"}},
        }
    )


def gce_spec(_folder: Path) -> Spec:
    return GceSpec.model_validate(
        {
            "region": "us-central1",
            "connect": "private",
            "own_address": "192.0.2.7",
            "head": {"types": ["e2-medium"]},
            "workers": {"cpu": {"count": 1, "types": ["n2-standard-2"], "market": "spot"}},
        }
    )


#: provider -> its settings for the test, from the test's folder
SPECS: dict[str, Callable[[Path], Spec]] = {
    "local": local_spec,
    "nspawn": nspawn_spec,
    "ssh": ssh_spec,
    "ec2": ec2_spec,
    "gce": gce_spec,
}
EACH = [
    pytest.param(name, marks=[NO_MACHINES] if name in ("nspawn", "ssh") else [])
    for name in sorted(SPECS)
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One that is there already, for the provider `ssh`."""
    identity = access.identity(tmp_path_factory.mktemp("theirs"), "theirs", make=True)
    place = IMAGES / "machines" / identity.id
    files = (IMAGES / "machines").glob("*/network.json")
    taken = [IPv4Network(json.loads(file.read_text())["range"]) for file in files]
    net = Network(identity.id, network.choose(identity.id, None, taken))
    try:
        layers = base.prepare(base.Recipe("debian-12"), IMAGES, print)
        net.up()
        address = host.free_address(net.range, [])
        made = host.Host("desk", address, place / "hosts" / "desk", net, layers)
        made.seed(identity.user_data("desk"))
        (place / "network.json").write_text(json.dumps({"range": str(net.range)}))
        made.boot()
        made.wait(PATIENCE)
        yield {
            "address": str(address),
            "key": str(identity.key),
            "host_key": identity.host_key("desk")[1],
        }
    finally:
        host.end(identity.id, "desk", place / "hosts" / "desk")
        net.down()
        cgroup.remove(cgroup.group(identity.id))
        base.remove_tree(place)


def make(name: str, folder: Path) -> Provider:
    spec = SPECS[name](folder)
    place = folder / "clusters" / "c"
    identity: Identity = access.identity(place, "c", make=False)
    return providers.provider(spec, identity, place)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """The API alone: what it says is what its machines are."""
    with Aws() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def gce(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gce]:
    """Likewise."""
    with Gce() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


#: provider -> the fixture of its cloud's double
DOUBLES = {"ec2": "aws", "gce": "gce"}


@pytest.fixture(params=EACH)
def provider(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Provider]:
    monkeypatch.setattr(packages, "require_installable", lambda _: None)
    if request.param == "ssh":
        there = request.getfixturevalue("machine")
        (tmp_path / "machine.json").write_text(json.dumps(there))
    if request.param in DOUBLES:
        request.getfixturevalue(DOUBLES[request.param])
    made = make(request.param, tmp_path)
    try:
        yield made
    finally:
        made.destroy(quiet)
        for one in made.machines() if made.name == "ssh" else ():
            assert one.reach is not None
            Ssh(one.reach).close()
            Ssh(one.reach, become=True).close()


def quiet(_line: str) -> None: ...


def keepers(provider: Provider) -> dict[str, object]:
    """What each machine is: its first process (others come a moment later), or the cloud's id."""
    if isinstance(provider, CloudProvider):
        alive, _ = provider.fleet.alive(provider.fleet.instances())
        return {name: one.id for name, one in alive.items()}
    running = host.running(provider.identity.id)
    return {name: min(some, key=lambda one: one.start).pid for name, some in running.items()}


def names(machines: tuple[Machine, ...]) -> list[str]:
    return [machine.name for machine in machines]


def test_every_provider_is_tested_here() -> None:
    assert set(SPECS) == set(providers.PROVIDERS)


def test_planning_changes_nothing(provider: Provider) -> None:
    plan = provider.plan()
    assert plan.machines
    assert [machine.roles for machine in plan.machines if "head" in machine.roles]
    assert names(provider.plan().machines) == names(plan.machines)
    assert not provider.folder.exists()
    if provider.remote:
        assert provider.left() == ()


def test_what_is_made_is_made_once_and_goes_wholly(provider: Provider) -> None:
    plan = provider.plan()
    provider.create(plan, quiet)
    made = provider.machines()
    assert names(made) == names(plan.machines)
    assert all(machine.state == "running" for machine in made)
    assert provider.plan().missing == ()
    running = keepers(provider)
    provider.create(provider.plan(), quiet)
    assert provider.machines() == made
    assert keepers(provider) == running
    if not provider.remote:
        assert inventory.build("c", made, provider.variables())
    provider.destroy(quiet)
    assert provider.left() == ()
    assert provider.looked_for or not provider.remote
    provider.destroy(quiet)  # of what is gone
    assert provider.left() == ()


def test_an_interrupted_create_goes_on(provider: Provider) -> None:
    said: list[str] = []

    def interrupted(line: str) -> None:
        said.append(line)
        raise KeyboardInterrupt

    plan = provider.plan()
    try:
        provider.create(plan, interrupted)
    except KeyboardInterrupt:
        assert said
    provider.create(provider.plan(), quiet)
    assert names(provider.machines()) == names(plan.machines)
    assert all(machine.state == "running" for machine in provider.machines())


def test_machines_that_are_made_carry_labels(provider: Provider) -> None:
    if not provider.remote or not provider.disposable:
        pytest.skip(f"{provider.name} makes no machines")
    provider.create(provider.plan(), quiet)
    if isinstance(provider, CloudProvider):
        alive, _ = provider.fleet.alive(provider.fleet.instances())
        for machine in provider.machines():
            labels = alive[machine.name].labels
            assert provider.identity.labels(machine.roles[0]).items() <= labels.items()
        return
    known = {file.parent.name: file for file in IMAGES.glob("machines/*/hosts/*/host.json")
             if provider.identity.id in str(file)}  # fmt: skip
    for machine in provider.machines():
        labels = json.loads(known[machine.name].read_text())["labels"]
        assert provider.identity.labels(machine.roles[0]).items() <= labels.items()


def test_destroying_nothing_is_no_error(provider: Provider) -> None:
    ended = provider.destroy(quiet)
    assert (ended.jobs, ended.processes, ended.machines) == (0, 0, ())
    assert provider.left() == ()
