"""What is made of Google's errors."""

from __future__ import annotations

import pytest

from clusterkit.cluster.providers.gce import words
from clusterkit.cluster.providers.gce.words import ApiError, OperationError, Trouble

STOCK_OUT = Trouble(
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "The zone 'projects/p/zones/us-central1-a' does not have enough resources available",
)
OUTER = Trouble("VM_MIN_COUNT_NOT_REACHED", "Requested minimum count of 2 VMs could not be created")
QUOTA = Trouble("QUOTA_EXCEEDED", "Quota 'NVIDIA_T4_GPUS' exceeded. Limit: 0.0 in us-central1")


def refused(status: int, reason: str, said: str) -> ApiError:
    return ApiError(
        "instances.insert", "lab", status=status, reason=reason, said=said, project="lab"
    )


def test_the_cause_of_an_operations_end_is_not_the_error_that_points_to_others() -> None:
    error = OperationError("regionInstances.bulkInsert", "us-central1", [OUTER, STOCK_OUT])
    assert error.code == STOCK_OUT.code
    assert words.refusal_kind(error) == "capacity"
    assert error.words.index(STOCK_OUT.code) < error.words.index(OUTER.code)
    assert OUTER.said in error.words


@pytest.mark.parametrize(
    ("troubles", "kind"),
    [
        ([OUTER], "capacity"),
        ([OUTER, QUOTA], "quota"),
        ([STOCK_OUT], "capacity"),
        ([Trouble("RESOURCE_IN_USE", "it is")], ""),
    ],
)
def test_kinds_of_operations_errors(troubles: list[Trouble], kind: str) -> None:
    assert words.refusal_kind(OperationError("instances.insert", "z", troubles)) == kind


@pytest.mark.parametrize(
    ("status", "reason", "said", "kind"),
    [
        (403, "quotaExceeded", "Quota 'CPUS' exceeded.", "quota"),
        (400, "invalid", "Machine type with name 'g2' does not exist in zone", "unsupported"),
        (403, "forbidden", "Required 'compute.instances.create' permission for 'x'", ""),
        (404, "notFound", "The resource 'projects/lab' was not found", ""),
    ],
)  # fmt: skip
def test_kinds_of_refused_calls(status: int, reason: str, said: str, kind: str) -> None:
    assert words.refusal_kind(refused(status, reason, said)) == kind


@pytest.mark.parametrize(
    ("status", "reason", "said", "told"),
    [
        (
            403,
            "accessNotConfigured",
            "Compute Engine API has not been used in project 7 before or it is disabled.",
            "gcloud services enable compute.googleapis.com --project lab",
        ),
        (
            403,
            "accessNotConfigured",
            "Cloud Billing API has not been used in project 7 before or it is disabled.",
            "gcloud services enable cloudbilling.googleapis.com",
        ),
        (
            403,
            "BILLING_DISABLED",
            "This API method requires billing to be enabled.",
            "https://console.cloud.google.com/billing/linkedaccount?project=lab",
        ),
        (401, "authError", "Invalid Credentials", "gcloud auth application-default login"),
        (
            403,
            "forbidden",
            "Required 'compute.instances.create' permission for 'projects/lab/zones/z'",
            "lack the permission compute.instances.create",
        ),
        (
            403,
            "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
            "Request had insufficient authentication scopes.",
            "Make it with the scope cloud-platform",
        ),
        (404, "notFound", "The resource 'projects/lab' was not found", "gcloud projects list"),
    ],
)
def test_a_newcomer_is_told_what_to_do(status: int, reason: str, said: str, told: str) -> None:
    error = refused(status, reason, said)
    assert told in str(error)
    assert said in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "Machine type with name 'g2-standard-8' does not exist in zone 'us-central1-f'.",
        "[pd-standard] features are not compatible for creating instance.",
        "Placement policies are not supported for this machine type.",
        "No more than 0 instances of machine type a3-highgpu-8g can be created with this policy.",
    ],
)
def test_a_type_that_will_not_do_leads_to_the_next_one(said: str) -> None:
    assert words.refusal_kind(refused(400, "invalid", said)) == "unsupported"


def test_what_is_asked_again() -> None:
    assert words.asks_to_slow_down(429, "")
    assert words.asks_to_slow_down(403, "rateLimitExceeded")
    assert not words.asks_to_slow_down(403, "forbidden")
    assert words.unclear(503)
    assert not words.unclear(501)
    assert not words.unclear(503, "ZONE_RESOURCE_POOL_EXHAUSTED")


def test_credentials_that_are_not_there() -> None:
    said = "Your default credentials were not found. To set up Application Default Credentials, ..."
    assert "gcloud auth application-default login" in words.credentials(said)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("File /no/key.json was not found.", "File /no/key.json was not found."),
        (
            "('Failed to load credentials from /my/key.json', MalformedError('It lacks a field.'))",
            "/my/key.json: It lacks a field.",
        ),
    ],
)
def test_a_file_of_credentials_that_is_no_good_is_what_has_to_be_corrected(
    said: str, told: str
) -> None:
    """No login helps while it is named."""
    found = words.credentials(said)
    assert told in found
    assert "GOOGLE_APPLICATION_CREDENTIALS: correct it" in found


def test_a_page_is_a_sentence() -> None:
    assert words.short("<html><body><h1>Bad\ngateway</h1></body></html>") == "Bad gateway."


def test_an_endpoint_that_is_not_reached() -> None:
    said = (
        "HTTPConnectionPool(host='127.0.0.1', port=9): Max retries exceeded with url: /compute "
        "(Caused by NewConnectionError(\"HTTPConnection(host='127.0.0.1', port=9): Failed to "
        'establish a new connection: [Errno 111] Connection refused"))'
    )
    told = "127.0.0.1:9: Failed to establish a new connection: [Errno 111] Connection refused."
    assert words.unheard(said) == told
    assert words.unheard("Connection aborted.") == "Connection aborted."
