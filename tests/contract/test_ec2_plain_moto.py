"""EC2's provider against moto alone, which lacks prices, quotas, placement groups and the names of
images: an API that clusterkit was not made against."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterkit.cluster import access
from clusterkit.cluster.cloud import found
from clusterkit.cluster.providers.ec2 import Ec2Provider
from clusterkit.cluster.providers.ec2.client import Client
from clusterkit.cluster.providers.ec2.cloud import Ec2Cloud
from clusterkit.cluster.spec import Ec2Spec
from clusterkit.errors import UsageError

#: One of the images that moto has.
IMAGE = "ami-1e749f67"
SETTINGS: dict[str, Any] = {
    "provider": "ec2",
    "region": "us-east-1",
    "image": IMAGE,
    "connect": "private",
    "own_address": "10.9.8.7",
    "head": {"types": ["t3.medium"]},
    "workers": {"cpu": {"count": 3, "types": ["c5.large", "c5.xlarge"], "market": "spot"}},
}
WORKERS = {"aws-cpu-1", "aws-cpu-2", "aws-cpu-3"}
#: Kinds of things that a start makes, as moto lists them. It keeps the interfaces of what ended.
KINDS = (
    ("DescribeVolumes", "Volumes"),
    ("DescribeSpotInstanceRequests", "SpotInstanceRequests"),
    ("DescribeAddresses", "Addresses"),
    ("DescribeKeyPairs", "KeyPairs"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture(autouse=True)
def environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that would have been made, in seconds."""
    return []


@pytest.fixture
def make(tmp_path: Path, pauses: list[float]) -> Callable[..., Ec2Provider]:
    """The provider as a new command has it."""
    folder = tmp_path / "clusters" / "aws"
    identity = access.identity(folder, "aws", None, make=True)

    def provider(**more: Any) -> Ec2Provider:
        spec = Ec2Spec.model_validate(SETTINGS | more)
        cloud = Ec2Cloud(Client(spec.region, pause=pauses.append), public=False)
        return Ec2Provider(spec, identity, folder, cloud=cloud)

    return provider


def states(provider: Ec2Provider) -> dict[str, str]:
    return {one.name: one.state for one in provider.machines()}


def test_a_whole_life(make: Callable[..., Ec2Provider], pauses: list[float]) -> None:
    said: list[str] = []
    provider = make()
    plan = provider.plan()
    assert {one.name for one in plan.missing} == {"aws-head", *WORKERS}
    assert plan.price is None  # nobody told one
    assert any("not known: the price of" in one for one in plan.notes)
    assert not any("<" in one for one in plan.notes)  # the page that came instead of an answer
    provider.create(plan, said.append)
    assert states(provider) == dict.fromkeys({"aws-head", *WORKERS}, "running")
    assert provider.plan().missing == ()

    there = found.clusters(make().cloud)
    assert [(one.name, one.id, one.owner != "") for one in there] == [
        ("aws", provider.identity.id, True)
    ]
    assert (there[0].heads, there[0].workers) == ({"running": 1}, {"running": 3})

    assert make().open_door() == ""
    assert "10.9.8.9/32" in make(own_address="10.9.8.9").open_door()
    assert make().cloud.door(provider.identity.id) == ["10.9.8.9/32"]

    make().pause(said.append)
    assert {name: state for name, state in states(make()).items() if state != "dead"} == {
        "aws-head": "stopped"
    }
    again = make()
    again.create(again.plan(), said.append)
    assert states(again) == dict.fromkeys({"aws-head", *WORKERS}, "running")

    last = make()
    last.destroy(said.append)
    assert last.left() == ()
    client = Client("us-east-1")
    assert [one for kind in KINDS for one in client.pages("ec2", *kind)] == []
    groups = client.pages("ec2", "DescribeSecurityGroups", "SecurityGroups")
    assert {one["GroupName"] for one in groups} == {"default"}
    assert sum("placement groups were not looked for" in one for one in said) <= 1
    assert max(pauses) <= 2  # what is missing there is soon missed


def test_an_image_that_is_not_there(make: Callable[..., Ec2Provider]) -> None:
    provider = make(image="ubuntu-24.04")
    with pytest.raises(UsageError, match=r"us-east-1 has no image ubuntu-24.04 for x86_64"):
        provider.plan()


def test_what_is_unknown_is_said_soon(pauses: list[float]) -> None:
    cloud = Ec2Cloud(Client("us-east-1", pause=pauses.append))
    prices = [cloud.disk_price(), cloud.address_price(), cloud.image_price()]
    prices += cloud.prices(["t3.medium"], [], ["on-demand"])
    assert all(price.amount is None and price.why for price in prices)
    assert cloud.resources("0" * 16) == []
    assert 0 < sum(pauses) <= 2 * 2.0  # for prices, and for placement groups
    pauses.clear()
    assert cloud.disk_price().amount is None
    assert cloud.resources("0" * 16) == []
    assert pauses == []  # repeated in vain once, asked once from then on


def test_an_account_that_is_not_known_is_asked_for(make: Callable[..., Ec2Provider]) -> None:
    """The machines of such an image cost money and are never reached."""
    notes = make(image="ami-03cf127a").plan().notes
    assert any("write `login:`" in one for one in notes)
    notes = make(image="ami-03cf127a", login="me").plan().notes
    assert not any("write `login:`" in one for one in notes)
