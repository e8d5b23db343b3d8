"""What AWS says, in words that help."""

from __future__ import annotations

import pytest

from clusterkit.cluster.providers.ec2 import words
from clusterkit.cluster.providers.ec2.words import ApiError


def refused(code: str, said: str = "Its words", operation: str = "RunInstances") -> ApiError:
    return ApiError("ec2", operation, "us-east-1", code=code, said=said)


@pytest.mark.parametrize(
    ("code", "said", "advice"),
    [
        ("AuthFailure", "not able to validate", "aws configure"),
        ("InvalidClientTokenId", "The security token is invalid", "aws sts get-caller-identity"),
        ("SignatureDoesNotMatch", "The signature does not match", "clock"),
        ("ExpiredToken", "The token is expired", "aws sso login"),
        ("RequestExpired", "Request has expired.", "it goes on"),
        ("OptInRequired", "You are not subscribed", "billing"),
        ("OptInRequired", "In order to use this AWS Marketplace product, accept", "its terms"),
        ("PendingVerification", "being validated", "minutes"),
        ("Blocked", "This account is blocked", "console.aws.amazon.com/support"),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "no", "spot.amazonaws.com"),
    ],
)
def test_awss_words_and_what_to_do(code: str, said: str, advice: str) -> None:
    error = refused(code, said)
    assert error.code == code
    assert said.rstrip(".") in str(error)
    assert code in str(error)
    assert advice in str(error)


def test_a_missing_permission_is_named_without_the_coded_message() -> None:
    error = refused(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: arn:aws:iam::1:user/me is not "
        "authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:us-east-1:1:instance/* "
        "because no identity-based policy allows it. Encoded authorization failure message: QWxs",
    )
    assert "lack the permission ec2:CreateTags;" in str(error)
    assert "QWxs" not in str(error)
    assert "docs/aws-policy.json" in str(error)


def test_a_missing_permission_that_aws_does_not_name_is_that_of_the_call() -> None:
    error = refused("UnauthorizedOperation", "You are not authorized to perform this operation.")
    assert "permission ec2:RunInstances;" in str(error)
    quota = ApiError(
        "service-quotas", "GetServiceQuota", "us-east-1", code="AccessDeniedException", said="No"
    )
    assert "servicequotas:GetServiceQuota" in str(quota)


def test_of_a_page_that_is_no_answer_of_aws_only_the_text_is_told() -> None:
    page = "<!doctype html>\n<html lang=en>\n<title>502</title>\n<h1>Bad Gateway</h1>"
    assert refused("502", page).words == "502: 502 Bad Gateway."
    assert words.short("a < b and b > c") == "a < b and b > c."
    assert len(refused("500", "x" * 100_000).said) < 1100


def test_the_old_prefix_of_a_code_does_not_matter() -> None:
    assert refused("Client.UnauthorizedOperation").code == "UnauthorizedOperation"


@pytest.mark.parametrize(
    ("code", "status", "unclear"),
    [
        ("InternalError", 500, True),
        ("InternalFailure", 500, True),
        ("", 502, True),
        ("InsufficientInstanceCapacity", 500, False),  # an answer, though it looks like a failure
        ("InvalidParameterValue", 400, False),
        ("NotImplemented", 501, False),
    ],
)
def test_only_what_is_open_is_asked_again(code: str, status: int, unclear: bool) -> None:
    assert words.unclear(code, status) is unclear


def test_a_quota_is_named_with_its_value_and_its_page() -> None:
    told = words.refusal_advice(
        "VcpuLimitExceeded", "on-demand", "g5.xlarge", "us-east-1a", "us-east-1", " of 4 vCPUs"
    )
    assert "Running On-Demand G and VT instances" in told
    assert "L-DB2E81BA" in told
    assert "of 4 vCPUs" in told
    assert "https://us-east-1.console.aws.amazon.com/servicequotas/" in told


def test_a_type_that_cannot_be_grouped_is_no_error_of_the_whole_launch() -> None:
    said = "Cluster placement groups are not supported by the 't3.micro' instance type."
    assert words.refusal_kind("InvalidParameterCombination", said) == "unsupported"
    said = "Placement groups may not be used with instances of type 'm1.small'."
    assert words.refusal_kind("InvalidParameterCombination", said) == "unsupported"
    assert words.refusal_kind("InvalidParameterCombination", "No default VPC") == ""
    assert words.refusal_kind("InvalidParameterValue", "is not supported") == ""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NoCredentialsError", "aws configure"),
        ("PartialCredentialsError", "incomplete"),
        ("SSOTokenLoadError", "aws sso login --profile work"),
        ("EndpointConnectionError", ""),
    ],
)
def test_credentials_that_are_missing(kind: str, expected: str) -> None:
    told = words.credentials(kind, "it said so", "work")
    assert expected in told
    assert bool(told) is bool(expected)


def test_doctor_is_named_in_errors_but_not_in_its_own_findings() -> None:
    error = refused("AuthFailure", "not able to validate")
    assert str(error).endswith("`clusterkit doctor` checks them.")
    assert "doctor" not in words.advice(error.code, error.said, error.action)
