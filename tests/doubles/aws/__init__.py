"""AWS on this machine, for tests: `with Aws() as aws: ...`. See ../README.md.

moto's server answers what is only looked up (types, regions, IAM ...); what clusterkit changes, and
what moto lacks, is answered here, never kinder than AWS. Every call is recorded.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

from botocore.session import Session
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from doubles.aws import catalogue, instances, network, services, storage, wire
from doubles.aws.faults import Fault
from doubles.aws.wire import AwsError, Raw, Request
from doubles.aws.world import ACTIONS, Thing, World
from doubles.faults import Counts, Effect, Hold, every, holding
from doubles.hosts import Doors, Gpus, Machines, Order

__all__ = ["Aws", "AwsError", "Call", "Fault", "Hold"]

#: Modules that are imported for the actions that they bring.
PARTS = (instances, network, services, storage)


@dataclass
class Call:
    """A call as it was heard. `outcome`: "ok", AWS's code, "cut" or "lost"; "" while it runs."""

    number: int
    at: float  # time.monotonic() when it came
    service: str
    action: str
    region: str
    params: Mapping[str, Any]
    outcome: str = ""
    took: float = 0.0

    @property
    def name(self) -> str:
        """As IAM writes it: "ec2:RunInstances"."""
        return f"{self.service}:{self.action}"


class Aws:
    """The double. Its attributes may be changed at any time; times are seconds.

    `hosts`: what makes instances real, None: they are words alone. `range`: of the default VPC,
    unless given that of the hosts. `port`: 0 for any.
    """

    def __init__(
        self,
        hosts: Machines | None = None,
        range: str | None = None,  # noqa: A002
        port: int = 0,
    ) -> None:
        self.hosts = hosts
        self._port = port
        self.range = range or (str(hosts.net.range) if hosts else "172.31.0.0/16")
        #: access key -> secret, account
        self.credentials = {"testing": ("testing", "123456789012")}
        #: Machines that are free: (type, zone, "spot" or "on-demand") -> how many; names may be
        #: patterns, the first that fits counts. What is not named is unlimited.
        self.capacity: dict[tuple[str, str, str], int | None] = {}
        #: (type, zone): the zone does not have the type.
        self.lacks: set[tuple[str, str]] = set()
        #: Quota code -> vCPUs.
        self.quotas: dict[str, float] = dict.fromkeys(catalogue.QUOTA_NAMES, 256)
        #: (type, zone) -> dollars an hour, instead of the catalogue's.
        self.spot_prices: dict[tuple[str, str], float] = {}
        #: SSM parameters beside the public ones.
        self.parameters: dict[str, str] = {}
        #: What is made is unknown to so many Describes of its kind.
        self.lag = 0
        self.boot_time = self.stop_time = self.end_time = self.image_time = 0.2
        #: How long an ended instance is shown.
        self.gone_after = 3600.0
        #: Whose machines share one /home: a text from a machine's tags; "" has its own.
        self.share: Callable[[Mapping[str, str]], str] = _by_cluster
        #: IAM's actions that are allowed, as patterns; None: all.
        self.allowed: Iterable[str] | None = None
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.holds: list[Hold] = []
        self._doors = Doors()
        self._worlds: dict[tuple[str, str], World] = {}
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._changed_moto = False

    # -- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self.hosts is not None:
            self.hosts.begin(self._powered_off)
            self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="host")
        with self._listening() as listening:
            self._server = make_server(
                "127.0.0.1",
                self._port,
                self._app,
                threaded=True,
                request_handler=_Handler,
                fd=listening.fileno(),
            )
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for hold in self.holds:
            hold.release(drop=True)
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self.hosts is not None:
            self.hosts.close()
        if self._changed_moto:
            moto_api_backend.reset()

    @property
    def url(self) -> str:
        assert self._server is not None, "use it with `with`"
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """AWS_* for a process that is to talk to the double, and to nobody else."""
        key, (secret, _) = next(iter(self.credentials.items()))
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent/aws/config",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/aws/credentials",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    # -- bad days -------------------------------------------------------------------------------

    def fault(
        self, action: str, what: str, times: int | None = 1, after: int = 0, **more: Any
    ) -> Fault:
        """See `Fault`. `aws.fault("*", "throttle", times=20)`"""
        with self.lock:
            self.faults.append(Fault(action, what, times, after, **more))
            return self.faults[-1]

    def refuse(
        self, action: str, times: int | None = 1, code: str = "DependencyViolation"
    ) -> Fault:
        """A resource that refuses for a while: `aws.refuse("DeleteSecurityGroup", times=3)`"""
        return self.fault(action, code, times)

    def hold(self, at: int = 1, effect: Effect = "before", counts: Counts = every) -> Hold:
        """Hold the `at`-th call from now, before or after it takes effect. See `Hold`."""
        with self.lock:
            self.holds.append(Hold(at, effect, counts))
            return self.holds[-1]

    def take_away(self, id_: str) -> None:
        """A spot interruption: its host dies without warning."""
        with self.lock:
            instances.take_away(*self._find(id_))

    def shut_itself_down(self, id_: str) -> None:
        """As `poweroff` inside the machine; with hosts, do that instead."""
        with self.lock:
            instances.shut_itself_down(*self._find(id_))

    # -- looking --------------------------------------------------------------------------------

    def count(self, *actions: str) -> int:
        """How many calls of these actions came; without any, of all."""
        with self.lock:
            return sum(1 for one in self.calls if not actions or one.action in actions)

    def counts(self) -> Counter[str]:
        with self.lock:
            return Counter(one.name for one in self.calls)

    def actions(self) -> set[str]:
        """The permissions that the calls needed; tags in a creating call need ec2:CreateTags."""
        with self.lock:
            found = {one.name for one in self.calls if one.action != "?"}
            if any(one.params.get("TagSpecifications") for one in self.calls):
                found.add("ec2:CreateTags")
            return found

    def things(self, kind: str, region: str | None = None) -> list[Thing]:
        """Copies of all things of a kind ("instance", "volume" ... see world.KINDS), as EC2 shows
        them; ended instances, default groups and the like among them."""
        with self.lock:
            worlds = [one for one in self._worlds.values() if region in (None, one.region)]
            for one in worlds:
                one.settle()
            return [
                {key: copy.copy(value) for key, value in thing.items() if key[0] != "_"}
                for one in worlds
                for thing in one.all(kind)
            ]

    def left(self, tag: str = "clusterkit-id") -> list[str]:
        """Everything with that tag that exists, ended instances apart: "kind id"."""
        found = []
        for kind in (
            "instance", "volume", "network-interface", "security-group", "key-pair",
            "placement-group", "image", "snapshot", "spot-instances-request",
        ):  # fmt: skip
            for one in self.things(kind):
                over = one.get("State", {}) in ("closed", "cancelled")
                if kind == "instance":
                    over = one["State"]["Name"] == "terminated"
                if not over and any(said["Key"] == tag for said in one["Tags"]):
                    id_ = next(value for key, value in one.items() if key in _ID_KEYS[kind])
                    found.append(f"{kind} {id_}")
        return found

    def world(self, region: str = "us-east-1", account: str = "123456789012") -> World:
        with self.lock:
            key = (account, region)
            if key not in self._worlds:
                self._worlds[key] = World(self, account, region)
            return self._worlds[key]

    # -- for the parts, called with the lock held ------------------------------------------------

    def free(self, type_: str, zone: str, market: str) -> int | None:
        """How many machines there are; None: unlimited."""
        key = self._capacity_key(type_, zone, market)
        return None if key is None else self.capacity[key]

    def taken(self, type_: str, zone: str, market: str, count: int) -> None:
        key = self._capacity_key(type_, zone, market)
        if key is not None and self.capacity[key] is not None:
            self.capacity[key] -= count  # type: ignore[operator]

    def spot_price(self, type_: str, zone: str) -> float | None:
        if (type_, zone) in self.spot_prices:
            return self.spot_prices[type_, zone]
        return catalogue.spot_price(type_, zone) if type_ in catalogue.ON_DEMAND else None

    def products(self) -> list[dict[str, Any]]:
        return self._products

    def console(self, id_: str) -> str:
        return self.hosts.console(id_) if self.hosts else ""

    def boot(self, world: World, one: Thing) -> None:
        if self.hosts is None:
            one["_due"] = (time.monotonic() + self.boot_time, partial(instances.began, one))
            return
        hosts, tags = self.hosts, {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        share = self.share(tags)
        address = one["PrivateIpAddress"]
        order = Order(
            id=one["InstanceId"],
            name=f"ip-{address.replace('.', '-')}",
            address=address,
            user_data=one["_user_data"],
            login=one["_login"],
            image=one["ImageId"],
            share=share,
            gpus=_gpus(world, one["InstanceType"]),
        )

        def failed() -> None:
            why = "Server.InternalError: Internal error on launch"
            instances.terminate(world, one, why)

        self._later(partial(hosts.boot, order), partial(instances.began, one), failed)

    def stopping(self, world: World, one: Thing, done: Callable[[], None]) -> None:
        if self.hosts is None:
            one["_due"] = (time.monotonic() + self.stop_time, done)
        else:
            self._later(partial(self.hosts.power_off, one["InstanceId"]), done)

    def ending(self, world: World, one: Thing, done: Callable[[], None], kill: bool) -> None:
        if self.hosts is None:
            one["_due"] = (time.monotonic() + self.end_time, done)
            return
        if kill:  # without warning; before anybody can ask
            self.hosts.kill(one["InstanceId"])
        self._later(partial(self.hosts.end, one["InstanceId"]), done)

    def keep_image(self, world: World, one: Thing, image: Thing, done: Callable[[], None]) -> None:
        assert self.hosts is not None
        self._later(partial(self.hosts.snapshot, one["InstanceId"], image["ImageId"]), done)

    # -- inside ---------------------------------------------------------------------------------

    def _listening(self) -> socket.socket:
        """A connection of somebody's may have a port that was wished for, for a moment."""
        pause, until = threading.Event(), time.monotonic() + 30
        while True:
            try:
                return socket.create_server(("127.0.0.1", self._port), backlog=128)
            except OSError:
                if not self._port or time.monotonic() > until:
                    raise
                pause.wait(0.1)

    def _capacity_key(self, *wanted: str) -> tuple[str, str, str] | None:
        for key in self.capacity:
            if all(fnmatch.fnmatchcase(one, two) for one, two in zip(wanted, key, strict=True)):
                return key
        return None

    @cached_property
    def _products(self) -> list[dict[str, Any]]:
        known = self.world().moto.describe_instance_types([], {})
        sizes = {
            one["InstanceType"]: (one["VCpuInfo"]["DefaultVCpus"], one["MemoryInfo"]["SizeInMiB"])
            for one in known
        }
        return list(catalogue.products(sizes))

    def _later(
        self,
        act: Callable[[], None],
        done: Callable[[], None],
        failed: Callable[[], None] | None = None,
    ) -> None:
        """Do what takes long in a thread, then, with the lock, what it changes here."""

        def work() -> None:
            try:
                act()
            except Exception:
                if failed is not None:
                    with self.lock:
                        failed()
                raise
            with self.lock:
                done()

        with contextlib.suppress(RuntimeError):  # all is over already
            assert self._pool is not None
            self._pool.submit(work).add_done_callback(_told)

    def _powered_off(self, id_: str) -> None:
        with self.lock, contextlib.suppress(KeyError):
            instances.shut_itself_down(*self._find(id_))

    def _find(self, id_: str) -> tuple[World, Thing]:
        for world in self._worlds.values():
            world.settle()
            if id_ in world.things["instance"]:
                return world, world.things["instance"][id_]
        raise KeyError(id_)

    def _app(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """The WSGI application."""
        size = int(environ.get("CONTENT_LENGTH") or 0)
        raw = wire.raw(environ, environ["wsgi.input"].read(size) if size else b"")
        with self.lock:
            began, number = time.monotonic(), len(self.calls) + 1
            call = Call(number, began, raw.service, raw.action, raw.region, {})
            self.calls.append(call)
            holds = holding(self.holds, call.name)
        lost = False
        try:
            for hold in holds:
                if hold.effect == "before":
                    hold.wait(call.name)
                    if hold.dropped:
                        raise _Cut
            lost = self._befall(call)
            status, kind, body = self._done(raw, call, environ)
        except AwsError as error:
            call.outcome = error.code
            status, kind, body = wire.refusal(raw.service, error)
        except _Cut:
            call.outcome = "cut"
            self._hang_up(environ)
        call.took = time.monotonic() - began
        for hold in holds:
            if hold.effect == "after":
                hold.wait(call.name)
                lost = lost or hold.dropped
        if lost:
            call.outcome = "lost"
            self._hang_up(environ)
        start(f"{status} {_REASONS.get(status, 'Error')}", [("Content-Type", kind)])
        return [body]

    def _befall(self, call: Call) -> bool:
        """What was planned for this call; whether its answer is to be lost."""
        with self.lock:
            striking = [one for one in self.faults if one.strikes(call.name)]
        lost = False
        for one in striking:
            if one.what == "slow":
                threading.Event().wait(one.seconds)
            elif one.what == "cut":
                raise _Cut
            elif one.what == "lost":
                lost = True
            else:
                error = one.error(call.name)
                assert error is not None
                raise error
        return lost

    def _done(self, raw: Raw, call: Call, environ: Mapping[str, Any]) -> tuple[int, str, bytes]:
        secrets = {key: secret for key, (secret, _) in self.credentials.items()}
        wire.check_signature(raw, secrets, _regions())
        request = wire.parse(raw)
        call.params = request.params
        if self.allowed is not None and request.service != "sts":
            self._permitted(request)
        if request.problem is not None:
            raise request.problem
        handler = ACTIONS.get(f"{request.service}:{request.action}")
        if handler is None:
            return self._behind(raw, call, environ)
        if request.params.get("DryRun") and request.action != "RunInstances":
            raise AwsError("DryRunOperation", instances.DRY_RUN, 412)
        with self.lock:
            world = self.world(raw.region, self.credentials[raw.key][1])
            result = handler(world, {**request.params, "_action": request.action})
            call.outcome = "ok"
            if self.hosts is not None and not request.action.startswith("Describe"):
                self._guard(self.hosts)
            return wire.answer(request, result)

    def _guard(self, hosts: Machines) -> None:
        """The hosts' doors are as the security groups say."""
        doors = network.doors(list(self._worlds.values()))
        if doors != self._doors:
            hosts.guard(doors)
            self._doors = doors

    def _permitted(self, request: Request) -> None:
        needed = [f"{request.service}:{request.action}"]
        if request.params.get("TagSpecifications"):
            needed.append("ec2:CreateTags")
        for one in needed:
            if not any(fnmatch.fnmatchcase(one, pattern) for pattern in self.allowed or ()):
                error = Fault("*", "denied").error(one)
                assert error is not None
                raise error

    def _behind(self, raw: Raw, call: Call, environ: Mapping[str, Any]) -> tuple[int, str, bytes]:
        """What moto answers. It remembers for all doubles of a process what it was asked to change,
        and is slow to forget: that is done only where there is something."""
        if not raw.action.startswith(("Describe", "Get", "List")):
            self._changed_moto = True
        heard: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            heard[:] = [int(status.split()[0]), dict(headers).get("Content-Type", "text/xml")]

        body = b"".join(self._moto(wire.environ(environ, raw.body), start))
        status, kind = heard
        code = re.search(rb'<Code>([^<]+)</Code>|"__type": ?"([^"]+)"', body)
        call.outcome = "ok" if status < 400 else (code[1] or code[2]).decode() if code else "?"
        return status, kind, body

    @staticmethod
    def _hang_up(environ: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError("hung up, as planned")


_ID_KEYS = {
    "instance": ("InstanceId",), "volume": ("VolumeId",), "snapshot": ("SnapshotId",),
    "network-interface": ("NetworkInterfaceId",), "security-group": ("GroupId",),
    "key-pair": ("KeyPairId",), "placement-group": ("GroupId",), "image": ("ImageId",),
    "spot-instances-request": ("SpotInstanceRequestId",),
}  # fmt: skip
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 500: "Error"}


class _Cut(Exception):
    """The connection ends without an answer."""


class _Handler(MotoRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Says nothing: the calls are recorded."""


def _regions() -> frozenset[str]:
    global _known_regions  # noqa: PLW0603
    if not _known_regions:
        _known_regions = frozenset(Session().get_available_regions("ec2"))
    return _known_regions


_known_regions: frozenset[str] = frozenset()


def _by_cluster(tags: Mapping[str, str]) -> str:
    """The machines of a cluster of clusterkit do, but one that becomes an image."""
    return "" if tags.get("clusterkit-group") == "builder" else tags.get("clusterkit-id", "")


def _gpus(world: World, type_: str) -> Gpus | None:
    info = world.moto.describe_instance_types([type_], {})[0].get("GpuInfo")
    if not info:
        return None
    one = info["Gpus"][0]
    maker = "Tesla" if one["Name"] in ("T4", "V100") else "NVIDIA"
    return Gpus(one["Count"], f"{maker} {one['Name']}", one["MemoryInfo"]["SizeInMiB"])


def _told(done: Any) -> None:
    """An error in a thread of ours is told: nobody waits for it."""
    if not done.cancelled() and done.exception() is not None:
        print(f"the double of AWS: {done.exception()!r}", flush=True)
