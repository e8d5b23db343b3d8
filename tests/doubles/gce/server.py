"""The HTTP side: each call is recorded, befallen by what was planned, checked and answered."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from werkzeug.serving import WSGIRequestHandler

from doubles.faults import holding
from doubles.gce import faults, operations, wire
from doubles.gce.faults import Fault
from doubles.gce.wire import Asked, GoogleError, NoSuchPage
from doubles.gce.world import METHODS, Thing, last, scope_of, shown

if TYPE_CHECKING:
    from doubles.gce import Gce

_PAGE = (
    "<!DOCTYPE html>\n<html lang=en>\n<title>Error 404 (Not Found)!!1</title>\n<p><b>404.</b> "
    "<ins>That’s an error.</ins>\n<p>The requested URL was not found on this server.\n"
)
_WORDS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    409: "Conflict", 412: "Precondition Failed", 429: "Too Many Requests",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
Answer = tuple[int, Any]


@dataclass
class Call:
    """A call as it was heard: its method ("instances.insert"; "?" for none of them), parameters and
    body. `outcome`: "ok", Google's reason, "cut" or "lost"; "" while it runs.
    """

    number: int
    at: float  # time.monotonic() when it came
    action: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    outcome: str = ""
    took: float = 0.0
    permission: str = ""  # what it needs of IAM


class Server:
    """The WSGI application."""

    def __init__(self, gce: Gce) -> None:
        self.gce = gce

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        gce = self.gce
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        verb, path = str(environ["REQUEST_METHOD"]), quote(str(environ.get("PATH_INFO", "/")))
        with gce.lock:
            call = Call(len(gce.calls) + 1, time.monotonic(), "?")
            with contextlib.suppress(NoSuchPage):
                call.action = wire.find(verb, path)[0].name
            gce.calls.append(call)
            holds = holding(gce.holds, call.action)
        lost, status, said = False, 404, None
        try:
            for hold in holds:
                if hold.effect == "before":
                    hold.wait(call.action)
                    if hold.dropped:
                        raise _Cut
            lost, struck = self._befall(call)
            status, said = self._done(call, verb, path, environ, body, struck)
        except GoogleError as error:
            call.outcome, status, said = error.reason, error.status, error.body()
        except NoSuchPage:
            call.outcome = "absent"
        except _Cut:
            call.outcome = "cut"
            self._hang_up(environ)
        call.took = time.monotonic() - call.at
        for hold in holds:
            if hold.effect == "after":
                hold.wait(call.action)
                lost = lost or hold.dropped
        if lost:
            call.outcome = "lost"
            self._hang_up(environ)
        kind = "text/html" if said is None else "application/json"
        text = _PAGE if said is None else json.dumps(said, indent=2)
        start(
            f"{status} {_WORDS.get(status, 'Error')}",
            [("Content-Type", f"{kind}; charset=UTF-8")],
        )
        return [text.encode()]

    def _befall(self, call: Call) -> tuple[bool, list[Fault]]:
        """What was planned for this call: whether its answer is to be lost, and what befalls its
        operation."""
        with self.gce.lock:
            striking = [one for one in self.gce.faults if one.strikes(call.action)]
        lost, later = False, []
        for one in striking:
            if one.what == "slow":
                threading.Event().wait(one.seconds)
            elif one.what == "cut":
                raise _Cut
            elif one.what == "absent":
                raise NoSuchPage
            elif one.what == "lost":
                lost = True
            elif one.inside or one.what == "late":
                later.append(one)
            else:
                error = one.error(call.action, self.gce.project)
                assert error is not None
                raise error
        return lost, later

    def _done(
        self, call: Call, verb: str, path: str, environ: Mapping[str, Any], body: bytes,
        struck: list[Fault],
    ) -> Answer:  # fmt: skip
        method, named = wire.find(verb, path)
        asked = wire.parse(method, named, str(environ.get("QUERY_STRING", "")), body)
        call.params, call.body = asked.params, asked.body
        gce = self.gce
        if method.api == "compute":
            self._permitted(call, asked)
            public = asked.name in ("images.get", "images.list", "images.getFromFamily")
            if asked.params["project"] != gce.project and not public:
                words = f"The resource 'projects/{asked.params['project']}' was not found"
                raise GoogleError(404, words, "notFound")
        if asked.name not in METHODS:
            raise NoSuchPage
        until = time.monotonic() + (gce.wait_time if asked.name.endswith(".wait") else 0)
        while True:
            with gce.lock:
                gce.world.settle()
                said = self._once(asked, struck)
                over = said.get("status") == "DONE" or time.monotonic() >= until
                if over or gce.wait_time == 0:
                    break
            threading.Event().wait(0.02)
        for words in wire.problems(method.schemas, method.said["response"], said, "answer"):
            raise GoogleError(500, f"the double's answer is wrong: {words}", "internalError")
        call.outcome = "ok"
        return 200, said

    def _once(self, asked: Asked, struck: list[Fault]) -> Thing:
        """Do it, unless this very request was done already."""
        world, id_ = self.gce.world, asked.params.get("requestId")
        digest = ""
        if id_ is not None:
            _check_id(id_)
            text = json.dumps([asked.name, asked.params, asked.body], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()
            if id_ in world.requests:
                before, operation = world.requests[id_]
                if before != digest:
                    words = f"Invalid value for field 'requestId': '{id_}'. The request ID was"
                    raise GoogleError(400, f"{words} used for another request before.")
                return operations.look(operation, counts=False)
        self.gce.late = sum(one.seconds for one in struck if one.what == "late")
        wrong = [one for one in struck if one.inside]
        try:
            said = self._failing(asked, wrong) if wrong else METHODS[asked.name](world, asked)
        finally:
            self.gce.late = 0.0
        if asked.method.verb != "GET":
            self.gce.guard()
        if id_ is not None:
            world.requests[id_] = (digest, said)
        return shown(said)

    def _failing(self, asked: Asked, wrong: list[Fault]) -> Thing:
        """An operation that ends with planned errors, and nothing comes of it."""
        world, scope = self.gce.world, scope_of(asked.params)
        codes = [one.what for one in wrong]
        if asked.name.endswith("bulkInsert") and "VM_MIN_COUNT_NOT_REACHED" not in codes:
            codes.insert(0, "VM_MIN_COUNT_NOT_REACHED")
        words = {one.what: one.words for one in wrong}
        zone = world.path("zones", "", last(scope))
        errors = [
            operations.trouble(one, words.get(one, ""), zone=zone,
                               least=asked.body.get("minCount", 1))
            for one in codes
        ]  # fmt: skip

        def refused() -> None:
            raise operations.Failed(*errors)

        noun, _, verb = asked.name.partition(".")
        name = asked.body.get("name", "")
        target = world.link(noun, scope, name).rstrip("/")
        return operations.begin(world, scope, verb, target, refused)

    def _permitted(self, call: Call, asked: Asked) -> None:
        call.permission = faults.permission(asked.name)
        granted = self.gce.allowed
        if granted is not None and not any(
            fnmatch.fnmatchcase(call.permission, one) for one in granted
        ):
            words = f"Required '{call.permission}' permission for 'projects/{self.gce.project}'"
            raise GoogleError(403, words, "forbidden")

    @staticmethod
    def _hang_up(environ: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("hung up, as planned")


class Handler(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Says nothing: the calls are recorded."""


class _Cut(Exception):
    """The connection ends without an answer."""


def _check_id(id_: str) -> None:
    ok = re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", id_)
    if not ok or uuid.UUID(id_).int == 0:
        words = f"Invalid value for field 'requestId': '{id_}'. Must be a valid UUID."
        raise GoogleError(400, words)
