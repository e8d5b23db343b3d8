"""What AWS said, and what to do about it. Pure. AWS's own words are always passed on.

Codes: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from clusterkit.cluster.cloud.api import CHECKED, Market
from clusterkit.errors import ClusterError

_SLOWER = frozenset(
    {
        "RequestLimitExceeded", "Throttling", "ThrottlingException", "ThrottledException",
        "RequestThrottled", "RequestThrottledException", "TooManyRequestsException", "SlowDown",
        "EC2ThrottledException", "BandwidthLimitExceeded", "PriorRequestNotComplete",
        "Unavailable", "ServiceUnavailable", "ServiceUnavailableException",
    }
)  # fmt: skip

#: Refusals of a launch: code -> kind of `api.Refused`. The next candidate is tried after each.
REFUSALS = {
    "InsufficientInstanceCapacity": "capacity",
    "InsufficientHostCapacity": "capacity",
    "InsufficientCapacity": "capacity",
    "InsufficientCapacityOnHost": "capacity",
    "InsufficientReservedInstanceCapacity": "capacity",
    "InsufficientFreeAddressesInSubnet": "capacity",
    "UnfulfillableCapacity": "capacity",
    "MaxSpotInstanceCountExceeded": "quota",
    "VcpuLimitExceeded": "quota",
    "InstanceLimitExceeded": "quota",
    "SpotMaxPriceTooLow": "price",
    "Unsupported": "unsupported",
    "UnsupportedOperation": "unsupported",
    "UnsupportedInstanceTypeOnHost": "unsupported",
    "InvalidFleetConfiguration": "unsupported",
}

_RENEW = (
    "The credentials have expired. Renew them (`aws sso login`, or new keys), then repeat the same "
    "command: it goes on from where it was."
)
_WRONG = (
    "AWS does not accept these credentials. `aws sts get-caller-identity` shows whose they are; "
    "`aws configure` or `aws sso login` sets others. A region that is not switched on for the "
    "account says so, too."
)
_CLOCK = (
    "The signature's time does not fit: this computer's clock is probably wrong. Set it "
    "(`timedatectl set-ntp true`), then repeat the same command."
)
_BILLING = (
    "The account is not ready for this: sign in at https://console.aws.amazon.com/billing/ and see "
    "whether a payment method or a verification is missing; for a region that is off by default, "
    "switch it on in the account's settings."
)
_ADVICE = {
    "AuthFailure": f"{_WRONG} A clock that is wrong by minutes looks like this too.",
    "InvalidClientTokenId": _WRONG,
    "UnrecognizedClientException": _WRONG,
    "InvalidAccessKeyId": _WRONG,
    "MissingAuthenticationToken": _WRONG,
    "SignatureDoesNotMatch": f"{_WRONG} A clock that is wrong by minutes looks like this too.",
    "InvalidSignatureException": f"{_WRONG} A clock that is wrong by minutes looks like this too.",
    "IncompleteSignature": _WRONG,
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "TokenRefreshRequired": _RENEW,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestInTheFuture": _CLOCK,
    "OptInRequired": _BILLING,
    "PendingVerification": f"{_BILLING} A verification takes some minutes, seldom hours.",
    "SubscriptionRequiredException": _BILLING,
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (
        "Spot machines need a role that AWS makes once for an account. Somebody who may do that "
        "calls `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`."
    ),
    "InvalidKey.Format": (
        "EC2 takes ed25519 and RSA keys. Without `key:` in the settings clusterkit makes one."
    ),
    "Blocked": "The account is blocked. AWS Support says why: https://console.aws.amazon.com/support",
}
#: No words of AWS's own are longer; whole pages are.
_LONG = 1000
_DENIED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
#: Services whose name in IAM is another one than botocore's.
_IAM = {"service-quotas": "servicequotas"}
_POLICY = "the policy that clusterkit needs is in docs/aws-policy.json"


class ApiError(ClusterError):
    """AWS refused a call. `code` and `said` are its own, `status` the HTTP status.

    `action` is the permission that the call needs, as "ec2:RunInstances".
    """

    def __init__(
        self, service: str, operation: str, region: str, *, code: str, said: str, status: int = 400
    ) -> None:
        code = re.sub(r"^(Client|Server)\.", "", code)
        self.code = code
        self.said = short(said)
        self.status = status
        self.unsure = False  # whether some try of the call may have been taken all the same
        self.action = f"{_IAM.get(service, service)}:{operation}"
        told = advice(code, said, self.action)
        if told.startswith(_WRONG):
            told = f"{told} {CHECKED}"
        super().__init__(
            f"AWS refused {operation} in {region}: {self.words}" + (f" {told}" if told else "")
        )

    @property
    def words(self) -> str:
        """The code and the message, as one sentence."""
        return f"{self.code}: {self.said}" if self.code else self.said


def refusal_kind(code: str, said: str) -> str:
    """What kind of refusal of a launch an error is (`api.Refused`); "" for others."""
    if code == "InvalidParameterCombination" and re.search("not supported|may not be used", said):
        return "unsupported"  # this type is not, of a placement group for example; others may be
    return REFUSALS.get(code, "")


def asks_to_slow_down(code: str) -> bool:
    return code in _SLOWER


def unclear(code: str, status: int) -> bool:
    """Whether it is open what became of the call: an error on AWS's side that is no refusal."""
    return (status >= 500 and status != 501 and code not in REFUSALS) or code == "InternalError"


def denied(code: str) -> bool:
    return code in _DENIED


def advice(code: str, said: str, action: str) -> str:
    """What to do about an error; "" where AWS's words are all there is to say."""
    if code in ("RequestExpired", "InvalidRequest") and "expired" in said.lower():
        # AWS says this of an old session as well as of a wrong clock.
        return f"{_RENEW} If they are new, this computer's clock is wrong (`timedatectl`)."
    if code == "OptInRequired" and "marketplace" in said.lower():
        return "The image is one of AWS Marketplace: accept its terms there, or use another image."
    if code in _DENIED:
        named = re.search(r"perform:?\s+([a-z0-9-]+:[A-Za-z]+)", said)
        missing = named[1] if named else action
        more = "" if named else "; if that is allowed, ec2:CreateTags may be what is missing"
        return f"The credentials lack the permission {missing}{more}; {_POLICY}."
    return _ADVICE.get(code, "")


def short(said: str) -> str:
    """AWS's words, in one line that ends as a sentence, without the coded message of a refusal.

    Of a page, which something between here and AWS may answer with, its text's beginning.
    """
    said = re.sub(r"\s*Encoded authorization failure message: \S+", "", said)
    if re.search(r"<(!doctype\s+)?html", said, re.IGNORECASE):
        said = re.sub(r"<[^<>]*>", " ", said.replace("\\n", " "))
    said = " ".join(said.split())
    if len(said) > _LONG:
        said = f"{said[:_LONG].rstrip()} ..."
    return said if not said or said.endswith((".", "!", "?")) else f"{said}."


def credentials(kind: str, said: str, profile: str | None) -> str:
    """What botocore says without having asked AWS, by the name of its exception; "" for others."""
    login = f"`aws sso login --profile {profile}`" if profile else "`aws sso login`"
    if kind == "NoCredentialsError":
        return (
            f"no credentials for AWS were found. `aws configure` or {login} makes some; `profile:` "
            "in the settings chooses among several."
        )
    if kind == "ProfileNotFound":
        return (
            f"{said.rstrip('.')}. `aws configure list-profiles` names those that there are; "
            "`profile:` in the settings or AWS_PROFILE chooses one."
        )
    if kind == "PartialCredentialsError":
        return f"AWS's credentials are incomplete: {said}. Set both the key's id and its secret."
    if kind in (
        "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError",
        "CredentialRetrievalError", "LoginRefreshRequired",
    ):  # fmt: skip
        return (
            f"AWS's credentials could not be got: {short(said)} Renew them ({login}), then repeat "
            "the same command: it goes on."
        )
    return ""


def near(word: str, known: Collection[str], count: int = 3) -> str:
    """ "; near are: ...", or ""."""
    found = difflib.get_close_matches(word, known, n=count, cutoff=0.6)
    return f"; near are: {', '.join(found)}" if found else ""


def refusal_advice(
    code: str, market: Market, type_: str, zone: str, region: str, limit: str
) -> str:
    """What to do about a refused launch. `limit` is the quota's value, in words, where known."""
    match REFUSALS.get(code):
        case "quota":
            from clusterkit.cluster.providers.ec2 import quotas

            family = quotas.family(type_, market)
            name = f'"{family.name}" ({family.code})' if family is not None else f"of {type_}"
            page = quotas.page(region, family.code if family is not None else "")
            return f"The quota {name}{limit} is too small. Ask for more: {page}"
        case "capacity" if code == "InsufficientFreeAddressesInSubnet":
            return f"The subnet in {zone} has no free addresses; other zones have their own."
        case "capacity":
            return "More types or zones in the settings give it more to choose from; or try later."
        case "unsupported":
            return f"{type_} cannot be had so in {zone}; `zones: any` leaves the choice open."
        case _:
            return ""
