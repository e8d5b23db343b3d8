"""Who may come in by ssh: the address under which the machines see this computer, and no other.

But for the networks that the settings, or `start --allow`, name.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException

from clusterkit.cluster import values
from clusterkit.cluster.cloud.whereabouts import Whereabouts
from clusterkit.cluster.providers import Say
from clusterkit.errors import ClusterError, UsageError

#: Pages that answer with the address that asks, and nothing else. Both are reached over IPv4 alone.
_PAGES = ("https://checkip.amazonaws.com", "https://api.ipify.org")
#: Seconds for a page to answer.
_PATIENCE = 5.0
_ADVICE = (
    "Write your address into the settings as `own_address:`, or the networks that may come in as "
    "`allow:`, or give `start` --allow CIDR."
)


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """One's own address as a network of one, and how it was found out, in words."""

    cidr: str
    how: str


class Door:
    """A cluster's. `asked` answers with one's own address; given by tests.

    `named` are the networks that the user named for this one, beside those of the settings.
    """

    def __init__(self, where: Whereabouts, asked: Callable[[], OwnAddress] | None = None) -> None:
        self._where, self._asked = where, asked
        self.named: tuple[str, ...] = ()
        self._address: OwnAddress | ClusterError | None = None

    def allow(self, cidrs: Sequence[str]) -> None:
        """Name networks. Raises UsageError for what is none."""
        wrong, found = [], list(self.allowed)
        for cidr in cidrs:
            try:
                found.append(values.cidr(cidr))
            except ValueError as error:
                wrong.append(f"--allow {cidr}: {error}")
        if wrong:
            raise UsageError("\n".join(wrong))
        self.named = tuple(
            dict.fromkeys(one for one in found if one not in self._where.settings.allow)
        )

    def open(self) -> str:
        """Mend the rule where one's own address is another one by now; what was done, in words."""
        own: OwnAddress | None = None
        try:
            own = self._own_address()
        except ClusterError:
            if not self.allowed:
                raise
            if not self.named:  # named networks may come in; who else may stays as it is
                return ""
        added, removed = self._where.cloud.open_door(self._where.identity.id, self._cidrs(own))
        if not added and not removed:
            return ""
        words = [f"ssh is open for {', '.join(added)} now"] if added else []
        words += [f"no longer for {', '.join(removed)}"] if removed else []
        if own is not None and own.cidr in added:
            return f"your address has changed: {', '.join(words)} ({own.how})"
        return f"the door was changed: {', '.join(words)}"

    @property
    def allowed(self) -> tuple[str, ...]:
        """The networks that may come in beside one's own address."""
        place = self._where.place
        more = self.named or (place.allow if place is not None else ())
        return (*self._where.settings.allow, *more)

    def cidrs(self, say: Say) -> list[str]:
        """All that may come in. Raises ClusterError when that is nobody that is known."""
        try:
            return self._cidrs(self._own_address())
        except ClusterError as error:
            if not self.allowed:
                raise
            say(str(error))
            return self._cidrs(None)

    def _cidrs(self, own: OwnAddress | None) -> list[str]:
        return list(dict.fromkeys([*([own.cidr] if own is not None else []), *self.allowed]))

    def _own_address(self) -> OwnAddress:
        """Found out once, or not: a command is over before that changes."""
        if self._address is None:
            try:
                self._address = self._asked_address()
            except ClusterError as error:
                self._address = error
        if isinstance(self._address, ClusterError):
            raise self._address
        return self._address

    def _asked_address(self) -> OwnAddress:
        if self._asked is not None:
            return self._asked()
        settings = self._where.settings
        towards = self._where.cloud.network() if settings.connect == "private" else ""
        return own(settings.own_address, settings.connect, towards)

    def notes(self) -> list[str]:
        """Whom it is open for, for the plan of what will be made."""
        found = []
        try:
            own = self._own_address()
            found.append(f"ssh is open for {', '.join(self._cidrs(own))} alone ({own.how})")
        except ClusterError as error:
            if not self.allowed:
                raise
            found.append(f"ssh is open for {', '.join(self.allowed)} alone; {error}")
        if "0.0.0.0/0" in self.allowed:
            found.append("0.0.0.0/0: ssh is open for the whole world, as you asked")
        return found

    @property
    def told(self) -> str:
        """Whom it was opened for, where that was found out in this run."""
        if not isinstance(self._address, OwnAddress):
            return ""
        return (
            f"ssh is open for {', '.join(self._cidrs(self._address))} alone "
            f"({self._address.how}); `clusterkit doctor` says whether that is you"
        )

    def news(self) -> list[str]:
        """Who will be let in, of a cluster that is there."""
        place = self._where.place
        more = [one for one in self.named if place is None or one not in place.allow]
        return [f"ssh will be open for {', '.join(more)} too"] if more else []


def own(
    wish: str, connect: str, towards: str, *, read: Callable[[str], str] | None = None
) -> OwnAddress:
    """The address of this computer, as the machines will see it.

    `wish` and `connect` are the settings' `own_address` and `connect`; `towards` is an address or
    network of the machines, for private connections. `read` asks a page for its text.

    Raises ClusterError, with what to write into the settings, when it cannot be found out.
    """
    read = read or _read
    if wish.startswith(("http://", "https://")):
        try:
            address = _asked(wish, read, public=connect == "public")
        except ClusterError as error:
            raise ClusterError(
                f"your own address could not be found out: {error}. {_ADVICE}"
            ) from error
        return OwnAddress(f"{address}/32", f"as {wish} answered")
    if wish != "auto":
        return OwnAddress(f"{wish}/32", "of the settings")
    if connect == "private":
        return OwnAddress(
            f"{_local(towards)}/32", f"this computer's address on the way to {towards}"
        )
    problems = []
    for page in _PAGES:
        try:
            address = _asked(page, read, public=True)
        except ClusterError as error:
            problems.append(str(error))
        else:
            return OwnAddress(f"{address}/32", f"as {page} answered")
    raise ClusterError(f"your own address could not be found out: {'; '.join(problems)}. {_ADVICE}")


def _asked(page: str, read: Callable[[str], str], *, public: bool) -> ipaddress.IPv4Address:
    try:
        text = read(page).strip()
    except (OSError, HTTPException, ValueError) as error:
        reason = error if isinstance(error, urllib.error.HTTPError) else _reason(error)
        raise ClusterError(f"{page} does not answer ({reason})") from error
    try:
        found = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise ClusterError(f"{page} answered {text[:40]!r}, which is no IPv4 address") from error
    unusable = found.is_unspecified or found.is_loopback or found.is_multicast
    if unusable or (public and not found.is_global):
        raise ClusterError(f"{page} answered {found}, which is no address of the Internet")
    return found


def _reason(error: Exception) -> object:
    """What is in urllib's wrapping."""
    return error.reason if isinstance(error, urllib.error.URLError) else error


def _read(page: str) -> str:
    """The beginning of a page, asked directly: ssh does not go through a web proxy either."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(page, headers={"User-Agent": "clusterkit"})  # noqa: S310 - http(s) alone, see own()
    with opener.open(request, timeout=_PATIENCE) as answer:
        beginning: bytes = answer.read(256)
    return beginning.decode("ascii", "replace")


def _local(towards: str) -> str:
    """The address of this computer that packets to `towards` leave from; none is sent."""
    try:
        network = ipaddress.IPv4Network(towards, strict=False)
    except ValueError as error:
        what = f"is no address but {towards!r}" if towards else "is not known"
        raise ClusterError(
            f"the network of the machines {what}, so your own address towards them could not be "
            f"found out. {_ADVICE}"
        ) from error
    target = network.network_address if network.prefixlen == 32 else network.network_address + 1
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((str(target), 22))
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise ClusterError(
            f"there is no way from this computer to {towards} ({error.strerror}), so your own "
            f"address towards the machines could not be found out. {_ADVICE}"
        ) from error
    return found
