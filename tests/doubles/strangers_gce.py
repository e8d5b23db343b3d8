"""A Compute Engine that somebody else might write, as small as he gets along with: plain
http.server, and nothing of `doubles.gce`. It checks nothing, a list that is to be filtered has
nothing in it, and what it is like can be told: where it is, which calls it knows, how it answers
the others, how it speaks.

    with Stranger(prefix="/some/prefix", unknown="html", page=1) as there:
        environment = {**os.environ, "CLUSTERKIT_GCE_ENDPOINT": there.url}
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Thing = dict[str, Any]
PROJECT = "p-1"
#: What even the smallest one knows.
KNOWN = frozenset({
    "instances.insert", "instances.get", "instances.list", "instances.delete", "instances.stop",
    "instances.start", "operations.get", "firewalls.insert", "firewalls.get", "firewalls.list",
    "firewalls.patch", "firewalls.delete",
})  # fmt: skip
_SCOPE = r"(?:/zones/(?P<zone>[^/]+)|/regions/(?P<region>[^/]+)|/(?P<all>global|aggregated))"
_PATH = re.compile(
    rf"/compute/v1/projects/(?P<project>[^/]+)(?:{_SCOPE})?"
    r"(?:/(?P<kind>\w+))?(?:/(?P<name>[\w-]+)(?:/(?P<verb>\w+))?)?"
)
_PAGE = "<!DOCTYPE html>\n<html><body><h1>{}</h1><p>Sorry, that's an error.</p></body></html>"


@dataclass
class Bad:
    """A bad moment: `call` is answered so, `times` times; of status 0 the answer is lost."""

    call: str
    status: int
    times: int = 1
    body: str = ""


@dataclass
class Stranger:
    """`unknown` is how calls are answered that it does not know: "text", "html", "json" (Google's
    shape), "flat" ({"error": "..."}), "path" (the path as a resource, in Google's words), 405, 501,
    or 200, with an empty answer.

    `looks` at an operation until it is done; `lag` lists until a new machine is shown; `lingers`
    lists that still show one that was deleted, as `fades`.
    """

    prefix: str = ""
    known: frozenset[str] = KNOWN
    unknown: str | int = "text"
    looks: int = 1
    links: str = "https://www.googleapis.com"
    places: bool = True  # operations tell their zone
    numbers: bool = False  # int64 are numbers
    page: int = 0
    lag: int = 0
    lingers: int = 0
    fades: str = "STOPPING"
    running: str = "RUNNING"
    more: bool = False  # fields and words that nobody has heard of
    zones: tuple[str, ...] = ()  # those that there are; () any
    error: Mapping[str, Any] | None = None  # of operations that make machines
    ids: bool = True
    bad: list[Bad] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    bodies: list[Thing] = field(default_factory=list)
    instances: dict[tuple[str, str], Thing] = field(default_factory=dict)
    firewalls: dict[str, Thing] = field(default_factory=dict)
    gone: list[tuple[int, Thing]] = field(default_factory=list)
    operations: dict[str, Thing] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.lock = threading.RLock()
        self._numbers = itertools.count(4_000_000_000_000_000_001)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.stranger = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return self.root + self.prefix

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # -- what there is ------------------------------------------------------------------------

    def shown(self) -> Iterator[tuple[str, Thing]]:
        """The machines as a list shows them now, each with its zone."""
        for (zone, name), one in list(self.instances.items()):
            if self.late.get(name, 0) > 0:
                self.late[name] -= 1
                continue
            yield zone, one
        self.gone = [(left - 1, one) for left, one in self.gone if left > 0]
        for _, one in self.gone:
            yield one["zone"].rpartition("/")[2], one

    def made(self, kind: str, body: Thing, scope: str) -> Thing:
        number = next(self._numbers)
        link = f"{self.links}/compute/v1/projects/{PROJECT}/{scope}"
        one = {**body, "kind": f"compute#{kind}", "creationTimestamp": "2026-11-29T09:00:00Z"}
        if self.ids:
            one["id"] = number if self.numbers else str(number)
        one["selfLink"] = f"{link}/{kind}s/{body['name']}"
        if self.more:
            one |= {"neverHeardOf": {"deep": [1, None]}, "satisfiesPzs": None}
        return one

    def instance(self, zone: str, body: Thing) -> Thing:
        one = self.made("instance", body, f"zones/{zone}")
        host = len(self.instances) + 2
        nics = [dict(nic) for nic in body.get("networkInterfaces", [{}])]
        for nic in nics:
            nic["networkIP"] = f"10.128.0.{host}"
            for outside in nic.get("accessConfigs", ()):
                outside["natIP"] = f"203.0.113.{host}"
        one |= {"status": self.running, "networkInterfaces": nics}
        one["zone"] = f"{self.links}/compute/v1/projects/{PROJECT}/zones/{zone}"
        if self.numbers:
            for disk in one.get("disks", ()):
                size = disk.get("initializeParams", {}).get("diskSizeGb", 0)
                disk["diskSizeGb"] = int(size)
        return one

    def operation(self, target: str, zone: str, error: Any = None) -> Thing:
        number = next(self._numbers)
        name = f"operation-{number}"
        one: Thing = {
            "kind": "compute#operation",
            "id": number if self.numbers else str(number),
            "name": name,
            "targetLink": f"{self.links}/compute/v1/projects/{PROJECT}/{target}",
            "selfLink": f"{self.links}/compute/v1/projects/{PROJECT}/operations/{name}",
            "left": self.looks,
            "error": error,
        }
        if self.places and zone:
            one["zone"] = f"{self.links}/compute/v1/projects/{PROJECT}/zones/{zone}"
        self.operations[name] = one
        return self.looked(one)

    def looked(self, one: Thing) -> Thing:
        done = one["left"] <= 0
        one["left"] -= 1
        said = {key: value for key, value in one.items() if key not in ("left", "error")}
        said["status"] = "DONE" if done else "RUNNING"
        if self.more:
            code = {"code": "NEVER_HEARD_OF", "message": "Mind the step.", "data": []}
            said |= {"warnings": [code], "warp": 9}
        if done and one["error"] is not None:
            said["error"] = one["error"]
        return said

    def listed(self, kind: str, items: list[Thing], token: str) -> Thing:
        said: Thing = {"kind": f"compute#{kind}List", "id": f"projects/{PROJECT}/{kind}"}
        begin = int(token or 0)
        some = items[begin : begin + self.page] if self.page else items
        if some:
            said["items"] = some
        if self.page and begin + self.page < len(items):
            said["nextPageToken"] = str(begin + self.page)
        return said

    # -- calls --------------------------------------------------------------------------------

    def answer(self, verb: str, path: str, token: str, body: Thing) -> tuple[int, Any]:
        """The HTTP status, and JSON or text."""
        match = _PATH.fullmatch(path)
        told = match.groupdict() if match else {}
        action = _action(verb, told)
        with self.lock:
            self.calls.append(action)
            self.bodies.append(body)
            if action not in self.known or told.get("project") != PROJECT:
                return self.unheard(verb, path)
            zone = told.get("zone") or ""
            if zone and self.zones and zone not in self.zones:
                return _wrong(404, f"The resource 'projects/{PROJECT}/zones/{zone}' was not found")
            kind, _, method = action.partition(".")
            if kind == "operations":
                one = self.operations.get(told["name"] or "")
                return (200, self.looked(one)) if one else _wrong(404, "no such operation")
            if kind == "firewalls":
                return self.rule(method, told["name"] or body.get("name", ""), body, token)
            return self.machine(method, zone, told["name"] or body.get("name", ""), body, token)

    def rule(self, method: str, name: str, body: Thing, token: str) -> tuple[int, Any]:
        target = f"global/firewalls/{name}"
        if method == "list":
            return 200, self.listed("firewall", list(self.firewalls.values()), token)
        if method == "insert":
            if name in self.firewalls:
                return _wrong(409, f"The resource '{target}' already exists")
            self.firewalls[name] = self.made("firewall", body, "global")
            return 200, self.operation(target, "")
        if name not in self.firewalls:
            return _wrong(404, f"The resource 'projects/{PROJECT}/{target}' was not found")
        if method == "get":
            return 200, self.firewalls[name]
        if method == "patch":
            self.firewalls[name] |= body
        else:
            del self.firewalls[name]
        return 200, self.operation(target, "")

    def machine(
        self, method: str, zone: str, name: str, body: Thing, token: str
    ) -> tuple[int, Any]:
        target = f"zones/{zone}/instances/{name}"
        if method == "list":
            some = [one for place, one in self.shown() if place == zone]
            return 200, self.listed("instance", some, token)
        if method == "insert":
            if (zone, name) in self.instances:
                return _wrong(409, f"The resource '{target}' already exists")
            if self.error is None:
                self.instances[zone, name] = self.instance(zone, body)
                self.late[name] = self.lag
            return 200, self.operation(target, zone, self.error)
        one = self.instances.get((zone, name))
        if one is None:
            return _wrong(404, f"The resource 'projects/{PROJECT}/{target}' was not found")
        if method == "get":
            return 200, one
        if method == "delete":
            del self.instances[zone, name]
            self.gone.append((self.lingers, {**one, "status": self.fades}))
        elif method == "setMetadata":
            one["metadata"] = body
        else:
            one["status"] = "TERMINATED" if method == "stop" else self.running
        return 200, self.operation(target, zone)

    def unheard(self, verb: str, path: str) -> tuple[int, Any]:
        match self.unknown:
            case "html":
                return 404, _PAGE.format("404 Not Found")
            case "json":
                return _wrong(404, "Not Found")
            case "flat":
                return 404, {"error": f"no route for {verb} {path}"}
            case "path":
                return _wrong(404, f"The resource '{path.partition('/v1/')[2]}' was not found")
            case 200:
                return 200, {}
            case int():
                return self.unknown, _PAGE.format(self.unknown) if self.unknown == 501 else ""
        return 404, "404 page not found\n"

    def befalls(self, call: str) -> Bad | None:
        with self.lock:
            for one in self.bad:
                if one.call == call and one.times > 0:
                    one.times -= 1
                    return one
        return None


def _wrong(status: int, said: str) -> tuple[int, Thing]:
    reason = {404: "notFound", 409: "alreadyExists"}[status]
    one = {"domain": "global", "reason": reason, "message": said}
    return status, {"error": {"code": status, "message": said, "errors": [one]}}


def _action(verb: str, told: Mapping[str, str | None]) -> str:
    kind, name, method = told.get("kind"), told.get("name"), told.get("verb")
    if not kind:
        return "projects.get" if told else "?"
    if told["all"] == "aggregated":
        return f"{kind}.aggregatedList"
    if method:
        return f"{kind}.{method}"
    if verb == "POST":
        return f"{kind}.{name or 'insert'}"
    if verb == "GET":
        return f"{kind}.{'get' if name else 'list'}"
    return f"{kind}.{verb.lower()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: else the other side's system waits for more

    def _any(self) -> None:
        there: Stranger = self.server.stranger  # type: ignore[attr-defined]
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or "{}") if size else {}
        url = urlsplit(self.path)
        begin = there.prefix.removesuffix("/").removesuffix("/compute/v1")
        path = url.path.removeprefix(begin) if url.path.startswith(f"{begin}/") else "?"
        query = {key: texts[0] for key, texts in parse_qs(url.query).items()}
        token = "999999" if "filter" in query else query.get("pageToken", "")
        match = _PATH.fullmatch(path)
        bad = there.befalls(_action(self.command, match.groupdict() if match else {}))
        if bad is not None and bad.status:
            self._send(bad.status, bad.body or _PAGE.format(bad.status))
            return
        status, said = there.answer(self.command, path, token, body)
        if bad is not None:  # it was done, and nobody hears of it
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(status, said)

    def _send(self, status: int, said: Any) -> None:
        text = (said if isinstance(said, str) else json.dumps(said)).encode()
        kind = "text/html" if isinstance(said, str) else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _any  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
