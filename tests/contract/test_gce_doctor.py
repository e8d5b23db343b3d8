"""What doctor finds out about a project of Google's, by the double and by answers over http."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.gce import Gce

from clusterkit.cluster.cloud.api import Finding
from clusterkit.cluster.providers.gce import doctor
from clusterkit.cluster.providers.gce.client import Client

REGION = "us-central1"
ALL = ["SDK", "credentials", "account", "region", "network", "clock", "permissions", "prices"]


@pytest.fixture
def gce() -> Iterator[Gce]:
    with Gce() as made:
        yield made


def client(gce: Gce, project: str = "", region: str = REGION) -> Client:
    return Client(region, project or gce.project, endpoint=gce.url, pause=lambda _: None)


def findings(client: Client, **settings: Any) -> dict[str, Finding]:
    return {one.subject: one for one in doctor.examine(client, **settings)}


def test_what_is_well(gce: Gce) -> None:
    found = findings(client(gce))
    assert list(found) == ALL
    assert {one.verdict for one in found.values() if one.subject != "permissions"} == {"good"}
    # Another endpoint may not have the Resource Manager.
    assert found["permissions"].verdict == "unknown"
    assert "404" in found["permissions"].words
    assert "google-cloud-compute" in found["SDK"].words
    assert gce.url in found["credentials"].words
    assert gce.project in found["account"].words
    assert "1066737951711)" in found["account"].words  # the number, not Compute Engine's own id
    assert "us-central1-a" in found["region"].words
    assert "4092 of 4092" in found["network"].words
    assert {one.action.partition(".")[2] for one in gce.calls if one.action != "?"} <= {
        "get", "list", "aggregatedList", "skus.list",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "words", "advice"),
    [
        ("disabled", "has not been used", "gcloud services enable compute.googleapis.com"),
        ("unpaid", "requires billing", "console.cloud.google.com/billing/linkedaccount"),
        ("expired", "ACCESS_TOKEN_EXPIRED", "gcloud auth application-default login"),
        ("denied", "compute.projects.get", "gcloud iam roles create clusterkit"),
        ("unavailable", "Internal error", ""),
        ("cut", "did not answer", ""),
    ],
)
def test_a_project_that_cannot_be_used(gce: Gce, fault: str, words: str, advice: str) -> None:
    gce.fault("*", fault, times=None)
    found = findings(client(gce))
    assert list(found) == ["SDK", "credentials", "account"]  # others would say the same
    assert found["account"].verdict == "bad"
    assert words in found["account"].words
    assert advice in f"{found['account'].words} {found['account'].advice}"


def test_a_project_that_is_not_there(gce: Gce) -> None:
    found = findings(client(gce, "tset-project"))
    assert found["account"].verdict == "bad"
    assert "tset-project" in found["account"].words
    assert "gcloud projects list" in found["account"].advice


def test_a_permission_that_is_missing(gce: Gce) -> None:
    gce.allowed = ["compute.projects.get", "compute.regions.*"]
    found = findings(client(gce))
    assert found["region"].verdict == "good"
    assert found["network"].verdict == "bad"
    assert "compute.networks.get" in found["network"].words
    assert "docs/gce-role.yaml" in found["network"].advice


def test_a_region_that_is_not_there(gce: Gce) -> None:
    found = findings(client(gce, region="us-centrall1"))
    assert found["region"].verdict == "bad"
    assert "gcloud compute regions list" in found["region"].advice


def test_no_default_network(gce: Gce) -> None:
    network = gce.world.get("networks", "global", "default")
    gce.world.remove(network)
    found = findings(client(gce))["network"]
    assert found.verdict == "bad"
    assert "gcloud compute networks create default --subnet-mode=auto" in found.advice


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"network": "labs"}, "gcloud compute networks list"),
        ({"subnetwork": "labs"}, "gcloud compute networks subnets list"),
        ({"network": "labs", "subnetwork": "default"}, "Correct `network:`"),
    ],
)
def test_a_network_that_is_not_there(gce: Gce, settings: dict[str, str], advice: str) -> None:
    found = findings(client(gce), **settings)["network"]
    assert found.verdict == "bad"
    assert advice in found.advice


def test_networks_that_have_no_place(gce: Gce) -> None:
    assert findings(client(gce), subnetwork="default")["network"].verdict == "good"
    subnet = gce.world.get("subnetworks", f"regions/{REGION}", "default")
    subnet["ipCidrRange"] = "10.128.0.0/30"
    assert "no address is free" in findings(client(gce))["network"].words
    gce.world.remove(subnet)
    assert "no subnetwork in us-central1" in findings(client(gce))["network"].words
    gce.world.get("networks", "global", "default")["autoCreateSubnetworks"] = False
    found = findings(client(gce))["network"]
    assert found.verdict == "bad"
    assert "`subnetwork:`" in found.advice


def test_prices_that_cannot_be_asked(gce: Gce) -> None:
    words = "Cloud Billing API has not been used in project 1 before or it is disabled."
    gce.fault("*skus.list", "disabled", times=None, words=words)
    found = findings(client(gce))
    assert found["prices"].verdict == "unknown"  # machines start without them
    assert "gcloud services enable cloudbilling.googleapis.com" in found["prices"].advice


def test_where_credentials_come_from(gce: Gce, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.auth import compute_engine
    from google.oauth2 import credentials, service_account

    asked = client(gce)
    monkeypatch.setattr(asked, "endpoint", None)

    def told(made: Any) -> Finding:
        monkeypatch.setattr(asked, "credentials", made)
        return doctor._credentials(asked)

    user: Any = credentials.Credentials
    found = told(user("secret-token", refresh_token="secret-refresh"))
    assert found.verdict == "good"
    assert "a user's" in found.words
    assert "secret" not in f"{found}"
    assert f"set-quota-project {gce.project}" in found.advice
    assert told(user("secret-token", quota_project_id="lab")).advice == ""
    account: Any = service_account.Credentials
    signer = SimpleNamespace(key_id="secret-key")
    found = told(account(signer, "robot@lab.iam.gserviceaccount.com", "https://127.0.0.1/token"))
    assert "a service account's key file, robot@lab.iam.gserviceaccount.com" in found.words
    assert "secret" not in f"{found}"
    machine: Any = compute_engine.Credentials
    assert "this machine" in told(machine()).words


# -- the Resource Manager --------------------------------------------------------------------------


class Manager(ThreadingHTTPServer):
    """Answers each question of permissions the same; `heard` are the questions."""

    def __init__(self, status: int, said: Any, date: datetime) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.said, self.date = status, said, format_datetime(date, usegmt=True)
        self.heard: list[tuple[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Manager

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.path, json.loads(body)))
        text = json.dumps(self.server.said).encode()
        self.send_response_only(self.server.status)
        self.send_header("Date", self.server.date)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def asked(
    status: int, said: Any, off: timedelta = timedelta()
) -> tuple[dict[str, Finding], list[tuple[str, Any]]]:
    """What is found with such an answer, and what was asked."""
    with Manager(status, said, datetime.now(UTC) + off) as manager:
        thread = threading.Thread(target=manager.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{manager.server_port}"
        found = doctor.permissions(Client(REGION, "lab", endpoint=url))
        manager.shutdown()
        thread.join()
    return {one.subject: one for one in found}, manager.heard


def test_all_permissions_are_there() -> None:
    found, heard = asked(200, {"permissions": list(doctor.PERMISSIONS)})
    assert {one.verdict for one in found.values()} == {"good"}
    path = "/v1/projects/lab:testIamPermissions"
    assert heard == [(path, {"permissions": list(doctor.PERMISSIONS)})]


def test_permissions_that_are_missing_are_named() -> None:
    found, _ = asked(200, {"permissions": list(doctor.PERMISSIONS[2:])})
    told = found["permissions"]
    assert told.verdict == "bad"
    assert all(one in told.words for one in doctor.PERMISSIONS[:2])
    assert doctor.PERMISSIONS[2] not in told.words
    assert "gcloud iam roles create clusterkit --project lab" in told.advice
    found, _ = asked(200, {})
    assert found["permissions"].verdict == "bad"


@pytest.mark.parametrize("said", [{"error": {"code": 403, "message": "It is off"}}, [], "no"])
def test_an_answer_that_tells_nothing(said: Any) -> None:
    found, _ = asked(403, said)
    assert found["permissions"].verdict == "unknown"
    assert "403" in found["permissions"].words


def test_nobody_answers() -> None:
    found = doctor.permissions(Client(REGION, "lab", endpoint="http://127.0.0.1:9"))
    assert [(one.subject, one.verdict) for one in found] == [("permissions", "unknown")]


@pytest.mark.parametrize(("minutes", "words"), [(10, "behind"), (-10, "ahead of")])
def test_a_clock_that_is_wrong(minutes: int, words: str) -> None:
    found, _ = asked(200, {}, timedelta(minutes=minutes))
    assert found["clock"].verdict == "bad"
    assert words in found["clock"].words
    assert "timedatectl" in found["clock"].advice
