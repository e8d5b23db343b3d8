"""Another endpoint than Google's: where its paths begin, and when it does not have a call."""

from __future__ import annotations

import pytest

from clusterkit.cluster.providers import gce
from clusterkit.cluster.providers.gce.endpoint import root, unheard_of
from clusterkit.cluster.spec import GceSpec
from clusterkit.errors import UsageError

IMAGE = "projects/p/global/images/family/f-1"
DISKS = "projects/p/aggregated/disks"
STOP = "projects/p/zones/us-x1-a/instances/m/stop"


@pytest.mark.parametrize(
    "address", ["http://h:1/x", "http://h:1/x/", "http://h:1/x/compute/v1", "http://h:1/x/compute/v1/"]
)  # fmt: skip
def test_where_the_paths_begin(address: str) -> None:
    assert root(address) == "http://h:1/x"


def gone(path: str) -> str:
    """As Google says it."""
    return f"The resource '{path}' was not found"


@pytest.mark.parametrize(
    ("method", "path", "status", "said", "unheard"),
    [
        ("aggregated_list", DISKS, 404, "404 page not found", True),
        ("aggregated_list", DISKS, 405, "", True),
        ("aggregated_list", DISKS, 501, "projects/p", True),
        ("aggregated_list", DISKS, 400, "404 page not found", False),
        ("aggregated_list", DISKS, 500, "Not Found", False),
        ("aggregated_list", DISKS, 404, f"no route: GET /compute/v1/{DISKS}", True),
        ("aggregated_list", DISKS, 404, gone(DISKS), True),
        # Who names what is not there knows the call.
        ("aggregated_list", DISKS, 404, gone("projects/p"), False),
        ("aggregated_list", DISKS, 404, "There is no project 'p'.", False),
        ("get_from_family", IMAGE, 404, "Not Found", True),
        ("get_from_family", IMAGE, 404, gone(IMAGE), False),
        ("get_from_family", IMAGE, 404, "no image of the family f-1", False),
        ("get_from_family", IMAGE, 404, f"The URL /compute/v1/{IMAGE} was not found", True),
        ("stop", STOP, 404, gone(STOP.removesuffix("/stop")), False),
        ("stop", STOP, 404, gone(STOP), True),
        ("stop", STOP, 404, "instance m not found", False),
    ],
)
def test_calls_that_it_does_not_have(
    method: str, path: str, status: int, said: str, unheard: bool
) -> None:
    names = [one for one in path.split("/") if one in ("p", "us-x1-a", "m", "f-1")]
    assert unheard_of(status, said, method, path, names) is unheard


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "ftp://h", "http://"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv(gce.ENDPOINT, address)
    settings = {"region": "us-central1", "project": "p-1", "head": {"types": ["e2-small"]}}
    spec = GceSpec.model_validate(settings)
    with pytest.raises(UsageError, match=f"{gce.ENDPOINT}: expected an address such as"):
        gce.connect(spec)
