"""The one door to Google: who asks, how patiently, and what becomes of an error.

The SDK's own retries are off, and `operation.result()` is not used: it asks another endpoint than
the one that was set. Every mutation carries a request id, so that it may be repeated.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from clusterkit.cluster.cloud.api import NoCredentials, NoRegion
from clusterkit.cluster.cloud.patience import Pauses
from clusterkit.cluster.providers.gce import endpoint as endpoints
from clusterkit.cluster.providers.gce import login, words
from clusterkit.cluster.providers.gce.found import last
from clusterkit.cluster.providers.gce.words import ApiError, OperationError, Trouble
from clusterkit.errors import ClusterError

#: Seconds for which Google's wish to slow down is obeyed, and for which an unclear end is repeated.
_THROTTLED, _UNCLEAR = 180.0, 30.0
#: Seconds for an operation to be done.
OPERATION = 600.0
#: Seconds between two looks at an operation: the first pause, and the longest.
_LOOK, _LOOK_AT_MOST = 0.2, 5.0
#: What is said of a place that is missing in a list.
_UNREACHED = "UNREACHABLE"
#: Seconds for an answer.
_READ = 60.0
#: What the SDK puts before Google's words.
_ASKED = re.compile(r"(?:[A-Z]+ (https?://\S+): )?(.*)", re.DOTALL)
_NO_PROJECT = (
    "Google needs a project: write `project:` into the settings, or set GOOGLE_CLOUD_PROJECT, or "
    "`gcloud config set project ID`"
)


class Client:
    """Calls to one region of one project. Safe to share among threads.

    `endpoint` is another one than Google's, which is asked without credentials. `credentials` is
    the file of a service account's key. `pause` waits for some seconds; given by tests.

    Raises ClusterError without google-cloud-compute or credentials, UsageError without a project.
    """

    def __init__(
        self,
        region: str,
        project: str | None = None,
        *,
        endpoint: str | None = None,
        credentials: str | None = None,
        say: Callable[[str], None] | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.region = region
        self.endpoint = endpoints.root(endpoint) if endpoint else None
        #: Whether lists are filtered there; what they tell is looked at all the same.
        self.filters = endpoint is None
        self.say = say or (lambda _: None)
        self._pause = pause or threading.Event().wait
        try:
            self.credentials, found = login.credentials(endpoint, credentials)
        except NoCredentials as error:
            if project:
                raise
            raise NoCredentials(f"{error}\n{_NO_PROJECT}") from error
        self.project = project or found or ""
        if not self.project:
            raise NoRegion(_NO_PROJECT)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._lacking: set[str] = set()

    def call(self, service: str, method: str, /, **request: Any) -> Any:
        """One call, as "instances", "get"; Google's answer as the SDK gives it.

        The project is filled in. Raises ApiError with Google's words, or ClusterError.
        """
        return self._asked(service, method, {"project": self.project, **request})

    def catalogue(self, method: str, /, **request: Any) -> Any:
        """One page of Cloud Billing's catalogue. Raises as `call` does."""
        answer = self._asked("catalog", method, request)
        return answer.raw_page

    def pages(self, service: str, method: str, /, **request: Any) -> list[Any]:
        """All of a listing; of an aggregated one the pairs of a scope and what is there.

        A zone that Google does not reach is no error where it is of another region.
        """
        if not self.filters:
            request.pop("filter", None)
        found: list[Any] = []
        token, seen = "", set()
        while True:
            more = {"page_token": token} if token else {}
            answer = self._asked(service, method, {"project": self.project, **request, **more})
            page = answer.raw_page
            self._require_reached(page)
            items = page.items
            found += list(items.items()) if hasattr(items, "items") else list(items)
            token = page.next_page_token
            if not token:
                return found
            if token in seen:
                raise ClusterError(f"{service}.{method} has no end: a page came twice")
            seen.add(token)

    def act(self, service: str, method: str, /, *, wait: float = OPERATION, **request: Any) -> Any:
        """A change, and the operation of it once it is done.

        Raises ApiError when it was refused, OperationError with all errors that it ended with.
        """
        request.setdefault("request_id", str(uuid.uuid4()))
        begun = self._asked(service, f"{method}_unary", {"project": self.project, **request})
        place: dict[str, str] = {k: str(request[k]) for k in ("zone", "region") if k in request}
        return self._done(begun, f"{service}.{method}", wait, place)

    def _done(self, operation: Any, what: str, seconds: float, place: Mapping[str, str]) -> Any:
        """The operation once it is done, or as it was last seen where it cannot be looked at.

        Raises OperationError, ClusterError when it takes longer than `seconds`.
        """
        deadline, waited, pause = time.monotonic() + seconds, 0.0, _LOOK
        while operation.name and _status(operation) != "DONE":
            if waited >= seconds or time.monotonic() > deadline:
                raise ClusterError(
                    f"Google has not done {what} after {seconds:g} s (operation {operation.name}). "
                    "Repeat the command: it goes on from here."
                )
            self._pause(pause)
            waited += pause
            pause = min(1.5 * pause, _LOOK_AT_MOST)
            try:
                operation = self._look(operation, place)
            except ApiError as error:
                if self.endpoint is None or not (error.lacking or error.status == 404):
                    raise
                self.say_once(
                    "operations",
                    f"{self.endpoint} does not tell how changes go on "
                    f"({words.call(error.what)}: {error.words}); what they come to is looked at",
                )
                break
        troubles = words.troubles(operation)
        if troubles and all(words.only_sums_up(one) for one in troubles):
            troubles += self._others(operation)
        if troubles:
            raise OperationError(what, _where(operation) or self.region, troubles)
        if operation.http_error_status_code >= 400:
            raise ApiError(
                what,
                self.region,
                status=operation.http_error_status_code,
                reason="",
                said=operation.http_error_message,
                project=self.project,
            )
        return operation

    def look(self, done: Callable[[], bool], seconds: float) -> bool:
        """Ask, ever more rarely, until it is done; False when that takes longer than `seconds`."""
        waited, pause = 0.0, _LOOK
        while not done():
            if waited >= seconds:
                return False
            self._pause(pause)
            waited += pause
            pause = min(1.5 * pause, _LOOK_AT_MOST)
        return True

    def lacks(self, error: ApiError, so: str = "") -> bool:
        """Whether an error says that another endpoint than Google's does not have a call.

        Then the user is told, once, what follows from it (`so`); "": nothing.
        """
        if not error.lacking:
            return False
        with self._lock:
            self._lacking.add(error.what)
        if so:
            told = f"{error.lacking} does not have {words.call(error.what)}: {so}"
            self.say_once(error.what, told)
        return True

    def has(self, service: str, method: str) -> bool:
        """Whether an endpoint may have a call; one that `lacks` it is not asked again."""
        with self._lock:
            return f"{service}.{method}" not in self._lacking

    def say_once(self, subject: str, text: str) -> None:
        """Tell the user about a subject, the first time that there is something to tell of it."""
        with self._lock:
            first = subject not in self._said
            self._said.add(subject)
        if first:
            self.say(text)

    # -- inside -----------------------------------------------------------------------------------

    def _require_reached(self, page: Any) -> None:
        """Raises ClusterError where a page does not tell all of the region: what is not told has
        not gone. google.aip.dev/217
        """
        missed = [str(one) for one in getattr(page, "unreachables", ())]
        if hasattr(page.items, "items"):
            missed += [
                scope for scope, have in page.items.items() if have.warning.code == _UNREACHED
            ]
        elif page.warning.code == _UNREACHED:
            missed.append(self.region)
        ours = {name for name in map(last, missed) if f"{name}-".startswith(f"{self.region}-")}
        if ours:
            raise ClusterError(
                f"Google does not reach {', '.join(sorted(ours))} now: what is there is not known. "
                "Repeat the same command later."
            )

    def _others(self, operation: Any) -> list[Trouble]:
        """The errors of the operations that are of a group with one, as those of the machines of a
        bulkInsert; none where they cannot be asked for.
        """
        group = str(operation.operation_group_id)
        if not group:
            return []
        wanted = f'operationGroupId = "{group}"'
        try:
            told = self.pages("global_operations", "aggregated_list", filter=wanted)
        except ClusterError:
            return []
        found = [one for _, have in told for one in have.operations if one.name != operation.name]
        return [
            trouble
            for one in found
            if str(one.operation_group_id) == group
            for trouble in words.troubles(one)
        ]

    def _look(self, operation: Any, place: Mapping[str, str]) -> Any:
        """`place` is where it was asked for, of an operation that does not say where it is."""
        name = {"operation": operation.name}
        zone, region = last(operation.zone), last(operation.region)
        if not zone and not region:
            zone, region = place.get("zone", ""), place.get("region", "")
        if zone:
            return self.call("zone_operations", "get", zone=zone, **name)
        if region:
            return self.call("region_operations", "get", region=region, **name)
        return self.call("global_operations", "get", **name)

    def _asked(self, service: str, method: str, request: Mapping[str, Any]) -> Any:
        """Ask, patiently."""
        from google.api_core import exceptions
        from google.auth import exceptions as auth
        from google.protobuf.json_format import ParseError
        from requests import exceptions as requests

        ask = getattr(self._client(service), method)
        what = f"{service}.{method.removesuffix('_unary')}"
        throttled, unclear = Pauses(_THROTTLED), Pauses(_UNCLEAR)
        unsure = False
        while True:
            pauses = unclear
            try:
                answer = ask(request=dict(request), retry=None, timeout=_READ)
            except exceptions.GoogleAPICallError as error:
                found = self._error(what, error, request)
                unsure = unsure or words.unclear(found.status, found.code)
                found.unsure = unsure
                if words.asks_to_slow_down(found.status, found.code):
                    pauses = throttled
                    self.say_once(
                        "slowly",
                        f"Google asks to slow down ({found.code or found.status}); it is asked "
                        f"again, more and more slowly, for {_THROTTLED / 60:g} minutes at most",
                    )
                elif not words.unclear(found.status, found.code):
                    raise found from error
                ends: tuple[ClusterError, Exception] = (found, error)
            except (requests.RequestException, auth.TransportError) as error:
                unsure = True
                said = words.unheard(str(error))
                told = ClusterError(
                    f"Google did not answer {what}: {said} Check this computer's network and "
                    "proxy, then repeat the same command: it goes on."
                )
                ends = (told, error)
            except auth.GoogleAuthError as error:
                raise ClusterError(words.credentials(str(error))) from error
            except (ParseError, UnicodeDecodeError) as error:
                raise ClusterError(
                    f"what {self.endpoint or 'Google'} answered {what} cannot be understood: "
                    f"{words.short(str(error))} Is Compute Engine at this address?"
                ) from error
            else:
                return answer
            seconds = pauses.next()
            if seconds is None:
                raise ends[0] from ends[1]
            self._pause(seconds)

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                from google.api_core.client_options import ClientOptions

                options = ClientOptions(api_endpoint=self.endpoint) if self.endpoint else None
                made = login.sdk(service)(
                    credentials=self.credentials, client_options=options, transport="rest"
                )
                if self.endpoint:
                    made.transport._session.hooks["response"].append(endpoints.plain)  # noqa: SLF001
                self._clients[service] = made
            return self._clients[service]

    def _error(self, what: str, error: Any, request: Mapping[str, Any]) -> ApiError:
        reason = str(getattr(error, "reason", None) or "")
        if not reason:
            listed = [one for one in error.errors or () if isinstance(one, Mapping)]
            reason = str(next((one["reason"] for one in listed if one.get("reason")), ""))
        status, lacking = int(error.code or 0), ""
        asked, said = _ASKED.match(str(error.message or error)).groups()  # type: ignore[union-attr]
        if self.endpoint:
            path = (asked or "").partition("/compute/v1/")[2].partition("?")[0]
            names = [text for text in path.split("/") if text in request.values()]
            if endpoints.unheard_of(status, said, what.partition(".")[2], path, names):
                lacking = self.endpoint
        return ApiError(
            what,
            self.project,
            status=status,
            reason=reason,
            said=said,
            project=self.project,
            lacking=lacking,
        )


def _status(operation: Any) -> str:
    return str(operation.status.name)


def _where(operation: Any) -> str:
    return last(operation.zone) or last(operation.region)
