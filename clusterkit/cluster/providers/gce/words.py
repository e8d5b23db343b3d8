"""What Google said, and what to do about it. Pure. Google's own words are always passed on.

Errors of calls: cloud.google.com/compute/docs/troubleshooting, google.aip.dev/193. Errors inside
operations have codes of their own: cloud.google.com/compute/docs/reference/rest/v1/zoneOperations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterkit.cluster.cloud.api import CHECKED
from clusterkit.cluster.providers.gce.quotas import page
from clusterkit.errors import ClusterError

#: Codes inside operations, and reasons of calls: code -> kind of `api.Refused`. The next candidate
#: is tried after each. UNSUPPORTED_OPERATION is also said of a machine that is preempted while it
#: is made, and so is RESOURCE_NOT_FOUND (`refusal_kind`): skypilot-org/skypilot#1797.
REFUSALS: Mapping[str, str] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": "capacity",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": "capacity",
    "RESOURCE_POOL_EXHAUSTED": "capacity",
    "REGION_RESOURCE_POOL_EXHAUSTED": "capacity",
    "resourcePoolExhausted": "capacity",
    "insufficientCapacity": "capacity",
    "RESOURCE_OPERATION_RATE_EXCEEDED": "capacity",
    "IP_SPACE_EXHAUSTED": "capacity",
    "IP_SPACE_EXHAUSTED_WITH_DETAILS": "capacity",
    "VM_MIN_COUNT_NOT_REACHED": "capacity",
    "QUOTA_EXCEEDED": "quota",
    "LIMIT_EXCEEDED": "quota",
    "UNSUPPORTED_OPERATION": "unsupported",
}
#: Of several errors of one operation this one only says that there are others.
_OUTER = "VM_MIN_COUNT_NOT_REACHED"
#: What is said of a type, or of GPUs, that a zone does not have.
_NOT_HERE = re.compile(
    r"(machine type|(machine|accelerator)types/).*(does not exist|not found)"
    r"|not (available|supported) (in|for)|not compatible (for|with)"
    r"|instances of machine type .* can be created with this policy",
    re.IGNORECASE,
)
#: Reasons of an error with HTTP 403 that mean: ask later.
_SLOWER = frozenset(
    {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
_LOGIN = (
    "`gcloud auth application-default login` gives this computer credentials; on a machine without "
    "a browser add --no-launch-browser. docs/gce.md, step 3."
)
#: Reasons of an error of a call that mean a limit of the project.
_QUOTAS = ("quotaExceeded", "limitExceeded")
#: Codes of a change that has to wait for another one of the same thing.
NOT_READY = frozenset({"resourceNotReady", "RESOURCE_NOT_READY"})
_IN_USE = NOT_READY | {
    "resourceInUseByAnotherResource",
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
    "RESOURCE_IN_USE",
}
_GONE = frozenset({"RESOURCE_NOT_FOUND", "NOT_FOUND"})
_THERE = frozenset({"alreadyExists", "RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})
#: No words of Google's own are longer; whole pages are.
_LONG = 1000


class GoogleError(ClusterError):
    """Google refused something. `code` is the reason or code in Google's words."""

    code: str
    said: str

    @property
    def words(self) -> str:
        """All that Google said, as one sentence or several."""
        return f"{self.code}: {self.said}" if self.code else self.said


class ApiError(GoogleError):
    """Google refused a call. `status` is HTTP's; `unsure`: some try of it may have been taken.

    `lacking`: another endpoint than Google's that seems not to have this call (`endpoint`).
    """

    def __init__(
        self,
        what: str,
        where: str,
        *,
        status: int,
        reason: str,
        said: str,
        project: str = "",
        lacking: str = "",
    ) -> None:
        self.what, self.status, self.code = what, status, reason
        self.said = short(said)
        self.unsure, self.lacking = False, lacking
        if lacking:
            thing = ", or nothing that it is about" if status == 404 else ""
            absent = f"{lacking} does not have the call {call(what)}{thing}"
            super().__init__(f"{absent} (HTTP {status}): {self.words}")
            return
        told = advice(status, reason, said, project)
        super().__init__(
            f"Google refused {what} in {where}: {self.words}" + (f" {told}" if told else "")
        )


@dataclass(frozen=True, slots=True)
class Trouble:
    """One error of an operation. `metric`, `limit` and `where` tell of a QUOTA_EXCEEDED."""

    code: str
    said: str
    metric: str = ""
    limit: float | None = None
    where: str = ""


class OperationError(GoogleError):
    """An operation was taken, and ended with errors; `troubles` are all of them."""

    def __init__(self, what: str, where: str, troubles: Sequence[Trouble]) -> None:
        self.what, self.troubles = what, tuple(troubles)
        first = cause(troubles)
        self.code, self.said = first.code, first.said
        super().__init__(f"Google could not do {what} in {where}: {self.words}")

    @property
    def words(self) -> str:
        """All errors; the one that only says that there are others comes last."""
        ordered = sorted(self.troubles, key=lambda one: one.code == _OUTER)
        told = [f"{one.code}: {short(one.said)}" for one in ordered]
        return " ".join(dict.fromkeys(told))


def cause(troubles: Sequence[Trouble]) -> Trouble:
    """The error that the others follow from."""
    return next((one for one in troubles if one.code != _OUTER), troubles[0])


def call(what: str) -> str:
    """A call as Google's documentation has it: "regionInstances.bulkInsert"."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), what)


def troubles(operation: Any) -> list[Trouble]:
    """All errors that an Operation of compute_v1 ended with."""
    found = []
    for one in operation.error.errors:
        metric, limit, where = "", None, ""
        for detail in one.error_details:
            if detail.quota_info.metric_name or detail.quota_info.limit_name:
                metric = detail.quota_info.limit_name or detail.quota_info.metric_name
                limit = detail.quota_info.limit
                where = detail.quota_info.dimensions.get("region", "")
        found.append(Trouble(one.code, one.message, metric, limit, where))
    return found


def only_sums_up(trouble: Trouble) -> bool:
    """Whether an error only says that there are others, which may be elsewhere."""
    return trouble.code == _OUTER


def refusal_kind(error: GoogleError) -> str:
    """What kind of refusal of a launch an error is (`api.Refused`); "" for others."""
    if error.code in REFUSALS:
        return REFUSALS[error.code]
    if error.code in _QUOTAS:
        return "quota"
    if isinstance(error, OperationError) and error.code in _GONE:
        return "capacity"
    if not isinstance(error, ApiError) or error.status in (400, 404):
        return "unsupported" if _NOT_HERE.search(error.said) else ""
    return ""


def is_gone(error: GoogleError) -> bool:
    """Whether there is no such thing, or no more."""
    return error.code in _GONE or (isinstance(error, ApiError) and error.status == 404)


def is_there(error: GoogleError) -> bool:
    """Whether a thing of that name is there already."""
    return error.code in _THERE or (isinstance(error, ApiError) and error.status == 409)


def is_in_use(error: GoogleError) -> bool:
    """Whether something else has to go before, or to end what it does."""
    return error.code in _IN_USE or "being used by" in error.said


def asks_to_slow_down(status: int, reason: str) -> bool:
    return status == 429 or (status == 403 and reason in _SLOWER)


def unclear(status: int, reason: str = "") -> bool:
    """Whether it is open what became of the call: an error on Google's side that is no refusal."""
    return status in (500, 502, 503, 504) and reason not in REFUSALS


def advice(status: int, reason: str, said: str, project: str) -> str:
    """What to do about an error; "" where Google's words are all there is to say."""
    low = said.lower()
    if asks_to_slow_down(status, reason):
        return "Wait for a minute or two, then repeat the same command: it goes on."
    if (
        reason in ("accessNotConfigured", "SERVICE_DISABLED")
        or "has not been used in project" in low
    ):
        api = "cloudbilling" if "billing" in low else "compute"
        return (
            f"The API is switched off: `gcloud services enable {api}.googleapis.com"
            f"{f' --project {project}' if project else ''}`, then wait for a minute or two."
        )
    if reason in ("BILLING_DISABLED", "UREQ_PROJECT_BILLING_NOT_FOUND") or (
        "billing" in low and "enable" in low
    ):
        return (
            "The project has no billing account: link one at https://console.cloud.google.com/"
            f"billing/linkedaccount{f'?project={project}' if project else ''}"
        )
    if reason in _QUOTAS:
        return f"Ask for more at {page(project)}"
    if status == 401:
        return f"The credentials are not accepted, or have expired. {_LOGIN} {CHECKED}"
    if reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT" or "authentication scopes" in low:
        return (
            "The credentials may not do this, whatever the role is: those of a machine at Google "
            "have only the scopes that it was made with. Make it with the scope cloud-platform, or "
            f"take others. {_LOGIN}"
        )
    if status == 404 and re.search(r"resource 'projects/[^/']+'", low):
        return (
            f"Is {project!r} the project's id (not its name or number)? `gcloud projects list` "
            "shows those that there are."
        )
    if status == 403:
        named = re.search(r"'([a-z]+\.[A-Za-z]+\.[A-Za-z]+)' permission", said)
        missing = f"the permission {named[1]}" if named else "a permission"
        return (
            f"The credentials lack {missing}. The role Compute Admin (roles/compute.admin) of the "
            f"project has all that clusterkit needs. {CHECKED}"
        )
    return ""


def credentials(said: str) -> str:
    """What google-auth says when it has no credentials, or cannot renew them."""
    if "could not automatically determine" in said.lower() or "were not found" in said:
        return f"No credentials for Google were found. {_LOGIN}"
    broken = re.search(r"from (\S+\.\w+)'?, \w+\('(.+?)'\)", said)  # an exception's repr
    if broken:
        said = f"{broken[1]}: {broken[2]}"
    file = re.search(r"File (\S+) was not found|(?:from )?(/\S+?\.json)", said)
    if file and "application_default_credentials" not in said:
        return (
            f"Google's credentials could not be used: {short(said)} That file is named by "
            "`credentials:` in the settings, or by GOOGLE_APPLICATION_CREDENTIALS: correct it, or "
            f"take it out; then {_LOGIN}"
        )
    return f"Google's credentials could not be used: {short(said)} {_LOGIN}"


def unheard(said: str) -> str:
    """What the SDK says of an endpoint that is not reached: where, and why, without the URL."""
    cause = re.search(r"Caused by \w+\([\"'](.+)[\"']\)\)$", said.strip())
    where = re.compile(r"HTTPS?Connection\w*\(host='([^']+)', port=(\d+)\)")
    return short(where.sub(r"\1:\2", cause[1]) if cause else said)


def short(said: str) -> str:
    """Google's words, in one line that ends as a sentence; of a page its text's beginning."""
    if re.search(r"<(!doctype\s+)?html", said, re.IGNORECASE):
        said = re.sub(r"<[^<>]*>", " ", said)
    said = " ".join(said.split())
    if len(said) > _LONG:
        said = f"{said[:_LONG].rstrip()} ..."
    return said if not said or said.endswith((".", "!", "?")) else f"{said}."
