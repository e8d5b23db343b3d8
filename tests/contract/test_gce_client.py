"""The one door to Google: what is asked again, and how operations end. Over real http."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.words import ApiError, OperationError
from clusterkit.errors import ClusterError, UsageError


class Google(ThreadingHTTPServer):
    """Answers in the order given, (HTTP status, body); the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any]] = []
        self.heard: list[tuple[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Google

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.server.heard.append((f"{self.command} {self.path}", body))
        answers = self.server.answers
        status, said = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:  # the connection ends, and nothing is heard
            self.close_connection = True
            return
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google() -> Iterator[Google]:
    with Google() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def client(google: Google) -> Client:
    return Client("us-central1", "lab", endpoint=google.url, pause=lambda _: None)


def operation(status: str, **more: Any) -> tuple[int, dict[str, Any]]:
    where = "https://www.googleapis.com/compute/v1/projects/lab/zones/us-central1-a"
    said = {"kind": "compute#operation", "name": "operation-1", "status": status, "zone": where}
    return 200, {**said, **more}


def refusal(status: int, reason: str, said: str) -> tuple[int, dict[str, Any]]:
    one = {"reason": reason, "message": said, "domain": "global"}
    return status, {"error": {"code": status, "message": said, "errors": [one]}}


def insert(client: Client) -> Any:
    return client.act(
        "instances", "insert", zone="us-central1-a", instance_resource={"name": "lab-head"}
    )


def test_an_operation_is_looked_at_where_it_was_asked_for(google: Google, client: Client) -> None:
    google.answers = [operation("PENDING"), operation("RUNNING"), operation("DONE")]
    assert insert(client).name == "operation-1"
    asked, *looks = google.heard
    assert "/projects/lab/zones/us-central1-a/instances" in asked[0]
    assert "requestId=" in asked[0]
    assert asked[1] == {"name": "lab-head"}
    assert all("/zones/us-central1-a/operations/operation-1" in one for one, _ in looks)


def test_all_errors_of_an_operation_are_read(google: Google, client: Client) -> None:
    quota = {"metricName": "compute.googleapis.com/nvidia_t4_gpus", "limit": 0}
    quota |= {"limitName": "NVIDIA-T4-GPUS-per-project-region", "dimensions": {"region": "us"}}
    errors = [
        {"code": "VM_MIN_COUNT_NOT_REACHED", "message": "2 were wanted"},
        {
            "code": "QUOTA_EXCEEDED",
            "message": "Quota 'NVIDIA_T4_GPUS' exceeded",
            "errorDetails": [{"quotaInfo": quota}],
        },
    ]
    # As Google does: DONE, with errors, and no HTTP status.
    google.answers = [operation("RUNNING"), operation("DONE", error={"errors": errors})]
    with pytest.raises(OperationError) as caught:
        insert(client)
    assert caught.value.code == "QUOTA_EXCEEDED"
    assert [one.code for one in caught.value.troubles] == [one["code"] for one in errors]
    told = caught.value.troubles[1]
    assert (told.metric, told.limit, told.where) == ("NVIDIA-T4-GPUS-per-project-region", 0, "us")
    assert "us-central1-a" in str(caught.value)


@pytest.mark.parametrize("first", [(503, {}), (0, None), (500, {})])
def test_an_unheard_change_is_repeated_with_its_id(
    google: Google, client: Client, first: tuple[int, Any]
) -> None:
    google.answers = [first, operation("DONE")]
    insert(client)
    ids = {path.partition("requestId=")[2].partition("&")[0] for path, _ in google.heard}
    assert len(google.heard) == 2
    assert len(ids) == 1
    assert uuid.UUID(ids.pop())


def test_a_wish_to_slow_down_is_obeyed_for_a_while_and_told_once(google: Google) -> None:
    said: list[str] = []
    pauses: list[float] = []
    client = Client("us-central1", "lab", endpoint=google.url, say=said.append, pause=pauses.append)
    slower = refusal(403, "rateLimitExceeded", "Rate Limit Exceeded")
    google.answers = [slower, slower, (200, {"name": "lab"})]
    assert client.call("projects", "get").name == "lab"
    assert len(said) == 1
    google.answers = [slower]
    with pytest.raises(ApiError) as caught:
        client.call("projects", "get")
    assert caught.value.code == "rateLimitExceeded"
    assert 180 <= sum(pauses) < 200


def test_a_refusal_is_not_asked_again(google: Google, client: Client) -> None:
    google.answers = [refusal(403, "forbidden", "Required 'compute.zones.list' permission for 'x'")]
    with pytest.raises(ApiError, match=r"permission compute\.zones\.list") as caught:
        client.pages("zones", "list")
    assert caught.value.said == "Required 'compute.zones.list' permission for 'x'."
    assert len(google.heard) == 1


def test_all_pages(google: Google, client: Client) -> None:
    google.answers = [
        (200, {"items": [{"name": "a"}], "nextPageToken": "more"}),
        (200, {"items": [{"name": "b"}]}),
    ]
    assert [one.name for one in client.pages("zones", "list")] == ["a", "b"]
    assert "pageToken=more" in google.heard[1][0]
    google.answers = [(200, {"items": {"zones/a": {"instances": [{"name": "lab-head"}]}}})]
    ((where, found),) = client.pages("instances", "aggregated_list")
    assert (where, found.instances[0].name) == ("zones/a", "lab-head")


def test_nobody_answers(google: Google, client: Client) -> None:
    google.answers = [(0, None)]
    with pytest.raises(ClusterError, match=r"did not answer projects\.get"):
        client.call("projects", "get")
    assert len(google.heard) > 2


def test_a_project_is_needed(google: Google) -> None:
    with pytest.raises(UsageError, match="GOOGLE_CLOUD_PROJECT"):
        Client("us-central1", endpoint=google.url)
