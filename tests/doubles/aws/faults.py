"""Bad days of AWS's, by plan."""

from __future__ import annotations

from dataclasses import dataclass

from doubles import faults
from doubles.aws.wire import AwsError

#: What services say to the same trouble: kind -> service -> code, words, HTTP status.
#: "" is every other service (JSON).
_KINDS: dict[str, dict[str, tuple[str, str, int]]] = {
    "throttle": {
        "ec2": ("RequestLimitExceeded", "Request limit exceeded.", 503),
        "sts": ("Throttling", "Rate exceeded", 400),
        "": ("ThrottlingException", "Rate exceeded", 400),
    },
    "expired": {
        "ec2": ("RequestExpired", "Request has expired.", 400),
        "sts": ("ExpiredToken", "The security token included in the request is expired", 403),
        "": (
            "ExpiredTokenException", "The security token included in the request is expired", 400,
        ),
    },
    "denied": {
        "ec2": (
            "UnauthorizedOperation",
            (
                "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:"
                "user/tester is not authorized to perform: {action} because no identity-based "
                "policy allows the {action} action. Encoded authorization failure message: 1kGX2dy"
            ),
            403,
        ),
        "sts": ("AccessDenied", "User is not authorized to perform: {action}", 403),
        "": ("AccessDeniedException", "User is not authorized to perform: {action}", 400),
    },
    "unavailable": {
        "": ("Unavailable", "The service is unavailable. Please try again shortly.", 503),
    },
    "internal": {"": ("InternalError", "An internal error has occurred", 500)},
}  # fmt: skip
#: Codes of EC2 by themselves: their words and HTTP status, where it is not 400.
_CODES: dict[str, tuple[str, int]] = {
    "AuthFailure": ("AWS was not able to validate the provided access credentials", 401),
    "RequestLimitExceeded": ("Request limit exceeded.", 503),
    "InternalError": ("An internal error has occurred", 500),
    "InternalFailure": ("An internal error has occurred", 500),
    "Unavailable": ("The service is unavailable. Please try again shortly.", 503),
    "ServiceUnavailable": ("The service is unavailable. Please try again shortly.", 503),
    "UnauthorizedOperation": ("You are not authorized to perform this operation.", 403),
    "RequestExpired": ("Request has expired.", 400),
    "ExpiredToken": ("The security token included in the request is expired", 403),
    "InsufficientInstanceCapacity": (
        "We currently do not have sufficient capacity in the Availability Zone you requested.", 500,
    ),
    "DependencyViolation": ("resource has a dependent object", 400),
    "OptInRequired": (
        "You are not subscribed to this service. Please go to http://aws.amazon.com to subscribe.",
        401,
    ),
    "PendingVerification": (
        (
            "Your request for accessing resources in this region is being validated, and you will "
            "not be able to launch additional resources in this region until the validation is "
            "complete. We will notify you by email once your request has been validated."
        ),
        400,
    ),
    "Blocked": ("This account is currently blocked and not recognized as a valid account.", 400),
}  # fmt: skip


@dataclass
class Fault(faults.Fault):
    """What happens to calls of `action` ("RunInstances", "ec2:*", "*").

    `what`: "throttle", "expired", "denied", "unavailable", "internal" (each service says it in its
    own way); any other error code of AWS's; "cut" (the connection ends before the call takes
    effect); "lost" (it takes effect, and its answer is lost); "slow" (answered after `seconds`).
    """

    def error(self, action: str) -> AwsError | None:
        """What is answered; None for what is no answer."""
        if self.what in ("cut", "lost", "slow"):
            return None
        service = action.partition(":")[0]
        if self.what in _KINDS:
            kinds = _KINDS[self.what]
            code, words, status = kinds.get(service) or kinds[""]
        else:
            code = self.what
            words, status = _CODES.get(code, (code, 400))
        return AwsError(code, self.words or words.format(action=action), status)

    def _pattern(self) -> str:
        return self.action if ":" in self.action or self.action == "*" else f"*:{self.action}"
