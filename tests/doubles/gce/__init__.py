"""Google Compute Engine on this machine, for tests: `with Gce() as gce: ...`. See ../README.md.

Every request is checked against Google's own discovery document, and every answer too. Every call
is recorded.
"""

from __future__ import annotations

import contextlib
import fnmatch
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from werkzeug.serving import BaseWSGIServer, make_server

from doubles.faults import Counts, Effect, Hold, every
from doubles.gce import (  # noqa: F401, bring methods
    billing,
    catalogue,
    instances,
    launches,
    listing,
    network,
    operations,
    storage,
)
from doubles.gce.faults import Fault
from doubles.gce.server import Call, Handler, Server
from doubles.gce.wire import GoogleError
from doubles.gce.world import Thing, World, shown
from doubles.hosts import Doors, Gpus, Machines, Order

__all__ = ["Call", "Fault", "Gce", "GoogleError", "Hold"]

#: Collections whose things may be a cluster's.
_OWNED = (
    "instances", "disks", "addresses", "firewalls", "images", "snapshots", "resourcePolicies",
)  # fmt: skip


class Gce:
    """The double. Its attributes may be changed at any time; times are seconds.

    `hosts`: what makes instances real, None: they are words alone. `port`: 0 for any. `range`: of
    the default network, unless given that of the hosts. `default_rules`: whether the network has
    the rules that a new project's has, which let ssh in from everywhere.
    """

    def __init__(
        self,
        hosts: Machines | None = None,
        port: int = 0,
        range: str | None = None,  # noqa: A002
        default_rules: bool = False,
    ) -> None:
        self.hosts = hosts
        self._port = port
        self.range = range or (str(hosts.net.range) if hosts else "10.128.0.0/9")
        self.default_rules = default_rules
        #: The one project that there is.
        self.project = "test-project"
        #: Machines that are free: (type, zone, "spot" or "on-demand") -> how many; names may be
        #: patterns, the first that fits counts. What is not named is unlimited. A machine with GPUs
        #: attached is "n1-standard-8+nvidia-tesla-t4:1", or its machine type alone.
        self.capacity: dict[tuple[str, str, str], int | None] = {}
        #: (machine or accelerator type, zone): the zone does not have it.
        self.lacks: set[tuple[str, str]] = set()
        #: Zones that lists do not reach.
        self.unreachable: set[str] = set()
        #: (region, metric) -> limit; the region is "" for GPUS_ALL_REGIONS and the like.
        self.quotas: dict[tuple[str, str], float] = {}
        #: What is made is unknown to so many gets and lists.
        self.lag = 0
        #: How many looks at an operation are too early, however quick it was.
        self.looks = 1
        #: Of operations that are not about machines.
        self.operation_time = 0.05
        self.boot_time = self.stop_time = self.end_time = self.image_time = 0.2
        #: How long `wait` waits for an operation that is not over.
        self.wait_time = 120.0
        #: Seconds that the operations of this call are late; see `Fault`.
        self.late = 0.0
        #: Whose machines share one /home: a text from a machine's labels; "" has its own.
        self.share: Callable[[Mapping[str, str]], str] = _by_cluster
        #: IAM's permissions that are granted, as patterns of "compute.instances.create"; None: all.
        self.allowed: Iterable[str] | None = None
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.holds: list[Hold] = []
        self._doors = Doors()
        self._world: World | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None

    # -- life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self.hosts is not None:
            self.hosts.begin(self._powered_off)
            self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="host")
        with self._listening() as listening:
            self._server = make_server(
                "127.0.0.1",
                self._port,
                Server(self),
                threaded=True,
                request_handler=Handler,
                fd=listening.fileno(),
            )
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for hold in self.holds:
            hold.release(drop=True)
        self.wait_time = 0.0
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self.hosts is not None:
            self.hosts.close()

    @property
    def url(self) -> str:
        assert self._server is not None, "use it with `with`"
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to talk to the double, and to nobody else."""
        return {
            "CLUSTERKIT_GCE_ENDPOINT": self.url,
            "GOOGLE_CLOUD_PROJECT": self.project,
            "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent/google/credentials.json",
            "CLOUDSDK_CONFIG": "/nonexistent/google",
            "NO_GCE_CHECK": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    # -- bad days -------------------------------------------------------------------------------

    def fault(
        self, action: str, what: str, times: int | None = 1, after: int = 0, **more: Any
    ) -> Fault:
        """See `Fault`. `gce.fault("instances.*", "throttle", times=20)`"""
        with self.lock:
            self.faults.append(Fault(action, what, times, after, **more))
            return self.faults[-1]

    def refuse(
        self, action: str, times: int | None = 1, reason: str = "resourceInUseByAnotherResource"
    ) -> Fault:
        """A resource that refuses for a while: `gce.refuse("firewalls.delete", times=3)`"""
        return self.fault(action, reason, times)

    def hold(self, at: int = 1, effect: Effect = "before", counts: Counts = every) -> Hold:
        """Hold the `at`-th call from now, before or after it takes effect. See `Hold`."""
        with self.lock:
            self.holds.append(Hold(at, effect, counts))
            return self.holds[-1]

    def take_away(self, name: str) -> None:
        """A preemption: the machine's host dies without warning."""
        with self.lock:
            instances.take_away(self.world, self._find(name))

    def shut_itself_down(self, name: str) -> None:
        """As `poweroff` inside the machine; with hosts, do that instead."""
        with self.lock:
            instances.shut_itself_down(self.world, self._find(name))

    # -- looking --------------------------------------------------------------------------------

    def count(self, *actions: str) -> int:
        """How many calls of these methods ("instances.insert", "*.list") came; or of all."""
        with self.lock:
            return sum(
                1 for one in self.calls
                if not actions or any(fnmatch.fnmatchcase(one.action, each) for each in actions)
            )  # fmt: skip

    def counts(self) -> Counter[str]:
        with self.lock:
            return Counter(one.action for one in self.calls)

    def permissions(self) -> set[str]:
        """What the calls needed of IAM."""
        with self.lock:
            return {one.permission for one in self.calls if one.permission}

    def things(self, collection: str) -> list[Thing]:
        """Copies of all things of a collection ("instances", "firewalls" ...) as Google shows
        them."""
        with self.lock:
            self.world.settle()
            return [shown(one) for one in self.world.all(collection)]

    def left(self, label: str = "clusterkit-id") -> list[str]:
        """Everything with that label that exists: "instance name". Rules and policies have no
        labels; there their description counts."""
        found = []
        for collection in _OWNED:
            for one in self.things(collection):
                if label in one.get("labels", {}) or label in one.get("description", ""):
                    found.append(f"{one['kind'].removeprefix('compute#')} {one['name']}")
        return found

    @property
    def world(self) -> World:
        with self.lock:
            if self._world is None:
                self._world = World(self)
            return self._world

    # -- for the parts, called with the lock held -----------------------------------------------

    def free(self, type_: str, zone: str, market: str) -> int | None:
        """How many machines there are; None: unlimited."""
        key = self._capacity_key(type_, zone, market)
        return None if key is None else self.capacity[key]

    def taken(self, type_: str, zone: str, market: str, count: int) -> None:
        key = self._capacity_key(type_, zone, market)
        if key is not None and self.capacity[key] is not None:
            self.capacity[key] -= count  # type: ignore[operator]

    def console(self, id_: str) -> str:
        return self.hosts.console(id_) if self.hosts else "made up\n"

    def boot(self, world: World, one: Thing, type_: str, done: Callable[[], None]) -> Thing:
        """The operation that switches a machine on."""
        begin = partial(operations.begin, world, one["_scope"], type_, one, done)
        if self.hosts is None:
            return begin(seconds=self.boot_time)
        image = one["_image"]
        said = {item["key"]: item.get("value", "") for item in one["metadata"]["items"]}
        user_data = said.get("user-data", "") if image["_cloud_init"] else ""
        order = Order(
            id=one["id"],
            name=one["name"],
            address=one["networkInterfaces"][0]["networkIP"],
            user_data=user_data.encode(),
            login=image["_login"],
            image=image["id"],
            share=self.share(one.get("labels", {})),
            gpus=_gpus(*one["_gpus"], driver=image["_driver"]),
        )

        def failed() -> None:
            instances.end(world, one)

        return begin(work=partial(self.hosts.boot, order), undone=failed)

    def stopping(self, world: World, one: Thing, type_: str, done: Callable[[], None]) -> Thing:
        begin = partial(operations.begin, world, one["_scope"], type_, one, done)
        if self.hosts is None:
            return begin(seconds=self.stop_time)
        return begin(work=partial(self.hosts.power_off, one["id"]))

    def ending(self, world: World, one: Thing, type_: str, done: Callable[[], None]) -> Thing:
        begin = partial(operations.begin, world, one["_scope"], type_, one, done)
        if self.hosts is None:
            return begin(seconds=self.end_time)
        return begin(work=partial(self.hosts.end, one["id"]))

    def kill(self, one: Thing) -> None:
        """Before anybody can ask."""
        if self.hosts is not None:
            self.hosts.kill(one["id"])

    def later(
        self, act: Callable[[], None], done: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        """Do what takes long in a thread, then, with the lock, what it changes here."""

        def work() -> None:
            try:
                act()
            except Exception:
                with self.lock:
                    failed()
                raise
            with self.lock:
                done()

        with contextlib.suppress(RuntimeError):  # all is over already
            assert self._pool is not None
            self._pool.submit(work).add_done_callback(_told)

    def guard(self) -> None:
        """The hosts' doors are as the firewall rules say."""
        if self.hosts is not None:
            doors = network.doors(self.world)
            if doors != self._doors:
                self.hosts.guard(doors)
                self._doors = doors

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

    def _capacity_key(self, type_: str, zone: str, market: str) -> tuple[str, str, str] | None:
        for key in self.capacity:
            names = {type_, type_.partition("+")[0]}
            if (
                any(fnmatch.fnmatchcase(one, key[0]) for one in names)
                and fnmatch.fnmatchcase(zone, key[1])
                and fnmatch.fnmatchcase(market, key[2])
            ):
                return key
        return None

    def _powered_off(self, id_: str) -> None:
        with self.lock, contextlib.suppress(KeyError):
            instances.shut_itself_down(self.world, self._find(id_))

    def _find(self, name: str) -> Thing:
        """By name or id. Raises KeyError."""
        self.world.settle()
        for one in self.world.all("instances"):
            if name in (one["name"], one["id"]):
                return one
        raise KeyError(name)


def _by_cluster(labels: Mapping[str, str]) -> str:
    """The machines of a cluster of clusterkit do, but one that becomes an image."""
    return "" if labels.get("clusterkit-group") == "builder" else labels.get("clusterkit-id", "")


def _gpus(type_: str, count: int, *, driver: bool) -> Gpus | None:
    if not type_:
        return Gpus(0, "none", 0) if driver else None  # nvidia-smi is there, and finds none
    gpu = catalogue.GPUS[type_]
    return Gpus(count, gpu.name, gpu.memory)


def _told(done: Any) -> None:
    """An error in a thread of ours is told: nobody waits for it."""
    if not done.cancelled() and done.exception() is not None:
        print(f"the double of Compute Engine: {done.exception()!r}", flush=True)
