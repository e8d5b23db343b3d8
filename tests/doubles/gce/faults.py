"""Bad days of Google's, by plan."""

from __future__ import annotations

from dataclasses import dataclass

from doubles import faults
from doubles.gce.wire import GoogleError

_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
#: kind -> HTTP status, reason of the old shape, reason of the new one, words.
_KINDS: dict[str, tuple[int, str, str, str]] = {
    "throttle": (
        403, "rateLimitExceeded", "RATE_LIMIT_EXCEEDED",
        ("Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service "
        "'compute.googleapis.com' for consumer 'project_number:1066737951711'."),
    ),
    "busy": (429, "rateLimitExceeded", "RATE_LIMIT_EXCEEDED", "Too many requests."),
    "expired": (
        401, "authError", "ACCESS_TOKEN_EXPIRED",
        ("Request had invalid authentication credentials. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project."),
    ),
    "denied": (
        403, "forbidden", "", "Required '{permission}' permission for 'projects/{project}'",
    ),
    "disabled": (
        403, "accessNotConfigured", "SERVICE_DISABLED",
        ("Compute Engine API has not been used in project {project} before or it is disabled. "
        "Enable it by visiting https://console.developers.google.com/apis/api/"
        "compute.googleapis.com/overview?project={project} then retry. If you enabled this API "
        "recently, wait a few minutes for the action to propagate to our systems and retry."),
    ),
    "unpaid": (
        403, "forbidden", "BILLING_DISABLED",
        ("This API method requires billing to be enabled. Please enable billing on project "
        "#{project} by visiting https://console.developers.google.com/billing/enable?project="
        "{project} then retry."),
    ),
    "unavailable": (503, "backendError", "", "Internal error. Please try again or contact Google."),
    "internal": (500, "internalError", "", "Internal error encountered."),
    "absent": (404, "", "", ""),
}  # fmt: skip
#: Reasons by themselves, which are not of HTTP 400: what resources answer for a while.
_STATUS = {
    "alreadyExists": 409, "notFound": 404, "forbidden": 403, "quotaExceeded": 403,
    "conditionNotMet": 412, "backendError": 503, "rateLimitExceeded": 403,
    "resourcePoolExhausted": 503, "insufficientCapacity": 503,
}  # fmt: skip
_WORDS = {
    "resourceInUseByAnotherResource": "The resource '{action}' is already being used by another.",
    "resourceNotReady": "The resource '{action}' is not ready",
}
_VERBS = {
    "insert": "create", "bulkInsert": "create", "aggregatedList": "list", "patch": "update",
}  # fmt: skip


@dataclass
class Fault(faults.Fault):
    """What happens to calls of `action` ("instances.insert", "instances.*", "*.list", "*").

    `what`: "throttle" (403), "busy" (429), "expired", "denied", "disabled" (the API), "unpaid",
    "unavailable", "internal", "absent" (the method is not there: a page for people, HTTP 404); any
    other reason of Google's, as "resourceNotReady"; a code in capitals, as
    "ZONE_RESOURCE_POOL_EXHAUSTED": the call is taken, and its operation ends with that error;
    "late" (its operation is done `seconds` later); "cut" (the connection ends before the call takes
    effect); "lost" (it takes effect, and its answer is lost); "slow" (answered after `seconds`).
    """

    @property
    def inside(self) -> bool:
        """Whether it is an error of the operation."""
        return self.what.isupper()

    def error(self, action: str, project: str) -> GoogleError | None:
        """What is answered; None for what is no answer."""
        if self.what in ("cut", "lost", "slow", "late", "absent") or self.inside:
            return None
        if self.what not in _KINDS:
            words = self.words or _WORDS.get(self.what, self.what).format(action=action)
            return GoogleError(_STATUS.get(self.what, 400), words, self.what)
        status, reason, new, words = _KINDS[self.what]
        said = self.words or words.format(project=project, permission=permission(action))
        details = {"@type": _INFO, "reason": new, "domain": "googleapis.com", "metadata": {}}
        return GoogleError(status, said, reason, (details,) if new else ())


def permission(action: str) -> str:
    """IAM's, for a method: "compute.instances.create"."""
    noun, _, verb = action.partition(".")
    noun = {"regionInstances": "instances"}.get(noun, noun)
    return f"compute.{noun}.{_VERBS.get(verb, verb)}"
