"""The one door to AWS: who asks, how patiently, and what becomes of an error.

botocore's own retries are off. They would repeat RunInstances where AWS says, with HTTP 500, that
it has no such machine now, and they multiply with ours. Here a call is repeated in two cases: AWS
asks to slow down, or nobody knows what became of the call. Every call that clusterkit makes may be
repeated: launches carry a token, what is there already is looked at by whoever made it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from clusterkit.cluster.cloud.api import NoCredentials, NoRegion
from clusterkit.cluster.cloud.patience import Pauses
from clusterkit.cluster.providers.ec2 import words
from clusterkit.cluster.providers.ec2.words import ApiError
from clusterkit.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.loaders import Loader

_T = TypeVar("_T")

#: Seconds for which AWS's wish to slow down is obeyed, and for which an unclear end is repeated.
_THROTTLED, _UNCLEAR = 180.0, 30.0
#: Seconds for questions that there is another answer to, or that a plan can do without.
_ASIDE = 2.0
_ASIDES = ("pricing", "service-quotas", "ssm")
#: Seconds for which something just made may be unknown to AWS.
_SETTLING = 60.0
#: How codes end that say that something is not there.
_UNKNOWN = (".NotFound", ".Unknown")
#: Seconds to connect, and for an answer.
_CONNECT, _READ = 10, 60


class Client:
    """API calls to one region with one account's credentials. Safe to share among threads.

    `pause` waits for some seconds; tests give one that does not.
    """

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        *,
        say: Callable[[str], None] | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._session = _session(region, profile)
        self.profile = profile
        self.region = self._session.region_name or ""
        self._check_region()
        self.say = say or (lambda _: None)
        self._pause = pause or threading.Event().wait
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._vain: set[tuple[str, str, str]] = set()
        self._reached = False

    @property
    def session(self) -> Session:
        """For `doctor`, which looks at where credentials come from."""
        return self._session

    def call(self, service: str, operation: str, /, *, at: str = "", **params: Any) -> Any:
        """One call, as "ec2", "RunInstances"; AWS's answer as botocore gives it.

        `at` is another region. Raises ApiError with AWS's words, or ClusterError.
        """
        from botocore import exceptions, xform_name
        from botocore.parsers import ResponseParserError

        # Unlike these, the rest of BotoCoreError is about credentials and settings.
        unheard: tuple[type[Exception], ...] = (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.IncompleteReadError,
            ResponseParserError,
        )
        away = (
            exceptions.EndpointConnectionError,
            exceptions.ConnectTimeoutError,
            exceptions.ProxyConnectionError,
        )
        at = at or _home(service, self.region)
        method = getattr(self._client(service, at), xform_name(operation))
        throttled = Pauses(_THROTTLED)
        # What was repeated in vain is asked once from then on, where little depends on it.
        key = (service, operation, at)
        unsure = False
        aside = Pauses(0.0 if key in self._vain else _ASIDE)
        unclear = aside if service in _ASIDES else Pauses(_UNCLEAR)
        while True:
            pauses = unclear
            try:
                answer = method(**params)
            except exceptions.ClientError as error:
                self._reached = True
                found = self._error(service, operation, at, error.response)
                unsure = unsure or words.unclear(found.code, found.status)
                found.unsure = unsure
                if words.asks_to_slow_down(found.code):
                    pauses = throttled
                    self._tell(found)
                elif not words.unclear(found.code, found.status):
                    raise found from error
                cause: ClusterError = found
                source: Exception = error
            except unheard as error:
                unsure = True
                cause = self._unheard(service, operation, at, error)
                source = error
                # Somebody answers, but not AWS; or there is no way to it now, and there was none.
                if isinstance(error, ResponseParserError) or (
                    isinstance(error, away) and not self._reached
                ):
                    pauses = aside
            except exceptions.BotoCoreError as error:
                raise self._local(service, operation, at, error) from error
            else:
                self._reached = True
                self._vain.discard(key)
                return answer
            seconds = pauses.next()
            if seconds is None:
                if pauses is aside:
                    self._vain.add(key)
                raise cause from source
            self._pause(seconds)

    def pages(
        self, service: str, operation: str, key: str, /, *, at: str = "", **params: Any
    ) -> list[Any]:
        """All that a listing has under `key`, of all its pages."""
        token: dict[str, Any] = {}
        found: list[Any] = []
        while True:
            answer = self.call(service, operation, at=at, **params, **token)
            found += answer.get(key) or ()
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}

    def settled(self, ask: Callable[[], _T], *codes: str) -> _T:
        """What `ask` answers. AWS may not know for a while what it has just made: after an error
        with a code that ends as one of `codes` it is asked again, for a minute at most.
        """
        pauses = Pauses(_SETTLING)
        while True:
            try:
                return ask()
            except ApiError as error:
                seconds = pauses.next() if error.code.endswith(codes or _UNKNOWN) else None
                if seconds is None:
                    raise
            self._pause(seconds)

    # -- inside -----------------------------------------------------------------------------------

    def _client(self, service: str, region: str) -> Any:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        with self._lock:  # a session is not safe for threads, its clients are
            key = (service, region)
            if key not in self._clients:
                config = Config(
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    connect_timeout=_CONNECT,
                    read_timeout=_READ,
                    max_pool_connections=16,
                    user_agent_extra="clusterkit",
                )
                client: Callable[..., Any] = self._session.client
                try:
                    self._clients[key] = client(service, region_name=region, config=config)
                except (BotoCoreError, ValueError) as error:
                    raise self._local(service, "", region, error) from error
            return self._clients[key]

    def _error(
        self, service: str, operation: str, at: str, response: Mapping[str, Any]
    ) -> ApiError:
        error = response.get("Error", {})
        return ApiError(
            service,
            operation,
            at,
            code=str(error.get("Code", "")),
            said=str(error.get("Message", "")),
            status=int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        )

    def _unheard(self, service: str, operation: str, at: str, error: Exception) -> ClusterError:
        where, said = f"{service} in {at}", words.short(str(error))
        return ClusterError(
            f"AWS ({where}) did not answer {operation}: {said} Check this computer's network and "
            "proxy, then repeat the same command: it goes on."
        )

    def _local(self, service: str, operation: str, at: str, error: Exception) -> ClusterError:
        """What botocore found wrong before it asked."""
        said = words.credentials(type(error).__name__, str(error), self.profile)
        kind = NoCredentials if type(error).__name__ == "NoCredentialsError" else ClusterError
        return kind(
            said
            or f"AWS ({service} in {at}) could not be asked{operation and ' '}{operation}: {error}"
        )

    def say_once(self, subject: str, text: str) -> None:
        """Tell the user about a subject, the first time that there is something to tell of it."""
        with self._lock:
            first = subject not in self._said
            self._said.add(subject)
        if first:
            self.say(text)

    def _tell(self, error: ApiError) -> None:
        self.say_once(
            "slowly",
            f"AWS asks to slow down ({error.code}); it is asked again, more and more slowly, for "
            f"{_THROTTLED / 60:g} minutes at most",
        )

    def _check_region(self) -> None:
        known = regions(self._session)
        if not self.region:
            raise NoRegion(
                "AWS needs a region: write `region:` into the settings, or set AWS_REGION, "
                "or give your profile one (`aws configure`)"
            )
        if known and self.region not in known:
            raise UsageError(
                f"{self.region} is no region of AWS that this boto3 knows"
                f"{words.near(self.region, known)}. A very new one needs a newer boto3: "
                "`pip install -U boto3`."
            )


def regions(session: Session) -> list[str]:
    """The regions with EC2 that this boto3 knows, of all partitions; asks nobody."""
    return sorted(
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition_name=partition)
    )


def _home(service: str, region: str) -> str:
    """Where a service is asked about a region: prices are told in few places of the world.

    docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
    """
    if service != "pricing":
        return region
    if region.startswith("cn-"):
        return "cn-northwest-1"
    if region.startswith("ap-"):
        return "ap-south-1"
    return "eu-central-1" if region.startswith(("eu-", "me-", "af-", "il-")) else "us-east-1"


@cache
def _descriptions() -> Loader:
    """AWS's descriptions of its services, read once: EC2's take a quarter of a second each time."""
    from botocore.loaders import create_loader

    return create_loader()


def _session(region: str | None, profile: str | None) -> Session:
    try:
        import boto3
        import botocore.session
        from botocore.exceptions import BotoCoreError, ProfileNotFound
    except ImportError as error:
        raise ClusterError(
            "the provider ec2 needs boto3, which is not installed: pip install 'clusterkit[ec2]'"
        ) from error
    try:
        # botocore alone does not heed AWS_REGION, which AWS's own command line prefers.
        core = botocore.session.Session(
            session_vars={"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
        )
        core.register_component("data_loader", _descriptions())
        made = boto3.session.Session(
            region_name=region, profile_name=profile, botocore_session=core
        )
        made.region_name  # noqa: B018 - reads the profile, which may not be there
        return made
    except ProfileNotFound as error:
        there = boto3.session.Session().available_profiles if profile else []
        listed = f" There are: {', '.join(there)}." if there else ""
        raise UsageError(
            f"{error}.{listed} `profile:` in the settings, or AWS_PROFILE, names it."
        ) from error
    except BotoCoreError as error:
        raise ClusterError(f"AWS's settings cannot be used: {error}") from error
