"""From machines that run to machines that answer: waited for, logged in to, looked at, trusted.

All machines at once. A host key that is not believed ends it; so does a machine that has died. The
host keys that were injected by user-data (which everything on a cloud's machine can read) are
replaced by keys made on the machine, over the connection that the first ones secured.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from clusterkit.cluster import probe, takeover
from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud.known import CLOUDS
from clusterkit.cluster.probe import Seen
from clusterkit.cluster.providers import Machine, Provider
from clusterkit.errors import ClusterError, TransportError, Unreachable
from clusterkit.transport import Address, Ssh

#: Accounts that images come with, the likeliest first.
USUAL_LOGINS = takeover.LOGINS

#: Seconds between two looks at whether the machines that are waited for still live.
_LOOK = 3.0
#: Seconds for which a new machine may refuse every account.
_FRESH = 20.0
#: Machines that are talked to at the same time.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Reached:
    """A machine that answers: how it is reached (as the account that sets it up), what it is."""

    machine: Machine
    address: Address
    seen: Seen
    notes: tuple[str, ...] = ()

    @property
    def transport(self) -> Ssh:
        """Commands on it run as root."""
        return Ssh(self.address, become=True)


#: Called with a machine's name and what it does now.
Tell = Callable[[str, str], None]


#: The machines as their place shows them now.
Look = Callable[[], Iterable[Machine]]


def reach(
    provider: Provider,
    identity: Identity,
    machines: Sequence[Machine],
    seconds: float,
    tell: Tell,
    look: Look | None = None,
) -> tuple[Reached, ...]:
    """Every machine, once each answers and was looked at; in the order given.

    `look` shows which of them still live; unless told, `provider.machines`.

    Raises ClusterError that names all machines that did not answer within `seconds`, and why.
    """
    over = threading.Event()
    reasons: dict[str, str] = {}
    silent = False
    dead: dict[str, str] = {}

    def one(machine: Machine) -> Reached:
        return _one(provider, identity, machine, time.monotonic() + seconds, over, dead, tell)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        tasks = {pool.submit(one, machine): machine for machine in machines}
        try:
            _await(look or provider.machines, tasks, dead)
        finally:
            over.set()  # after a failure or Ctrl-C nobody goes on waiting
    for task, machine in tasks.items():
        error = task.exception()
        if isinstance(error, TransportError):
            reasons[machine.name] = str(error)
            silent = silent or (isinstance(error, Unreachable) and error.why == "silent")
        elif error is not None:
            raise error
    if reasons:
        symptoms = provider.symptoms() or (provider.doorway() if silent else "")
        words = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
        raise ClusterError(
            f"{len(reasons)} of {len(machines)} machines of {provider.cluster!r} cannot be used:\n"
            f"{words}{_indented(symptoms)}\n"
            f"`clusterkit start {provider.cluster}` goes on from here."
        )
    return tuple(task.result() for task in tasks)


def _await(look: Look, tasks: Mapping[Future[Reached], Machine], dead: dict[str, str]) -> None:
    """Until all have ended; looks now and then whether a machine has died meanwhile."""
    waiting = set(tasks)
    pause = _LOOK
    while waiting:
        ended, waiting = wait(waiting, timeout=pause, return_when=FIRST_EXCEPTION)
        if any(task.exception() is not None for task in ended):
            # The others get a moment to tell their own reasons.
            wait(waiting, timeout=_LOOK)
            return
        if waiting:
            pause = min(2 * pause, 15.0)
            now = {machine.name: machine for machine in look()}
            for task in waiting:
                name = tasks[task].name
                state = now[name].state if name in now else "absent"
                if state != "running":
                    dead[name] = (now[name].why if name in now else "") or f"it is {state}"


def _one(
    provider: Provider,
    identity: Identity,
    machine: Machine,
    deadline: float,
    over: threading.Event,
    dead: Mapping[str, str],
    tell: Tell,
) -> Reached:
    if provider.disposable and not identity.believed(machine.name):
        raise TransportError(_stranger(provider))
    address, text, notes = _first_answer(provider, identity, machine, deadline, over, dead, tell)
    try:
        seen = probe.read(text)
    except ValueError as error:
        raise TransportError(f"{machine.name}: {error}") from error
    if seen.root != "yes":
        raise TransportError(
            f"{machine.name}: the account {seen.user!r} may not become root without a password "
            f"(sudo -n: {seen.root}). Allow it, or name another account with `login:`."
        )
    address = replace(address, user=address.user or seen.user)
    if provider.disposable and not (seen.rotated and seen.hostname == machine.name):
        tell(machine.name, "new host key")
        keys = seen.host_keys
        if not seen.rotated:
            keys = (_rotate(identity, machine.name, address),)
        else:
            Ssh(address, become=True).run(["sh", "-s"], input=_name(machine.name).encode())
        seen = replace(seen, host_keys=keys, rotated=True, hostname=machine.name)
    if provider.disposable:
        identity.forget_first_key(machine.name)
    tell(machine.name, "answers")
    return Reached(machine, address, seen, (*notes, *seen.notes))


def _first_answer(
    provider: Provider,
    identity: Identity,
    machine: Machine,
    deadline: float,
    over: threading.Event,
    dead: Mapping[str, str],
    tell: Tell,
) -> tuple[Address, str, tuple[str, ...]]:
    """The address with the account that worked, and what the probe printed there."""
    theirs = machine.reach is not None and not provider.disposable  # their ssh may know a login
    logins = [machine.login] if machine.login or theirs else []
    logins += [login for login in USUAL_LOGINS if login != machine.login]
    told, first_denied = False, 0.0
    while True:
        refused: list[str] = []
        try:
            for login in logins:
                address = _address(identity, machine, login)
                try:
                    done = Ssh(address, ask=False).run(["sh", "-s"], input=probe.SCRIPT.encode())
                except Unreachable as error:
                    if error.why != "denied":
                        raise
                    refused.append(login or "your own account")
                    denied = error
                    continue
                expected = bool(machine.login) or theirs
                return address, done.text, _which(machine, refused, login) if expected else ()
            raise Unreachable(  # noqa: TRY301 - new machines are patient with this one too
                f"no account lets the key {_key(identity, machine)} in: {', '.join(refused)} were "
                f"tried. Name the right one with `login:` in the settings. ssh said: {denied}",
                "denied",
            )
        except Unreachable as error:
            if machine.name in dead:
                raise Unreachable(
                    f"it ended while it was waited for: {dead[machine.name]}"
                ) from error
            if error.why == "key" and provider.name in CLOUDS:
                raise Unreachable(
                    f"{address} shows another host key than {machine.name} has: it is another "
                    f"machine, or somebody in between. If {provider.cluster!r} was adopted on "
                    "another computer meanwhile, that one has its keys now: work from there.",
                    error.why,
                ) from error
            # A machine that boots refuses everybody for a moment: its user is not made yet.
            if error.why == "denied":
                first_denied = first_denied or time.monotonic()
            young = provider.disposable and time.monotonic() - first_denied < _FRESH
            patient = error.why == "silent" or (error.why == "denied" and young)
            if not patient or time.monotonic() >= deadline or over.is_set():
                raise
            if not told:
                tell(machine.name, "booting")
                told = True
        over.wait(0.3)  # a refused connection comes back at once: do not hammer


def _which(machine: Machine, refused: Sequence[str], login: str) -> tuple[str, ...]:
    if refused:
        return (f"{machine.name}: {refused[0]} was refused, {login!r} worked",)
    return ()


def _address(identity: Identity, machine: Machine, login: str) -> Address:
    if machine.reach is not None:
        return replace(machine.reach, user=login) if login else machine.reach
    return identity.address(machine.name, machine.address, login, machine.port)


def _key(identity: Identity, machine: Machine) -> str:
    if machine.reach is not None:
        return machine.reach.key or "of your ssh agent or ~/.ssh"
    return str(identity.key)


#: A second key beside the first; repeated after an interruption, it is the same one.
_NEW_KEY = """\
set -eu
new=/etc/ssh/clusterkit_new_key
[ -e $new ] || { rm -f $new.part $new.part.pub; ssh-keygen -q -t ed25519 -N '' -C '' -f $new.part
  mv $new.part.pub $new.pub; mv $new.part $new; }
cat $new.pub
"""
#: The machine calls itself $name, also after a reboot, and can say what address that is. Made on
#: another file than clusterkit's own images have, which say there how cloud-init works in them.
_NAME = """\
if [ "$(cat /proc/sys/kernel/hostname)" != "$name" ] || [ "$(cat /etc/hostname)" != "$name" ]; then
  printf '%s\\n' "$name" > /etc/hostname.clusterkit
  mv -f /etc/hostname.clusterkit /etc/hostname
  hostname "$name" 2>/dev/null || printf '%s\\n' "$name" > /proc/sys/kernel/hostname
fi
if [ -d /etc/cloud ]; then
  mkdir -p /etc/cloud/cloud.cfg.d
  echo 'preserve_hostname: true' > /etc/cloud/cloud.cfg.d/99-clusterkit-name.cfg
fi
if ! grep -qsE "[[:space:]]$name([[:space:]]|\\$)" /etc/hosts; then
  { cat /etc/hosts 2>/dev/null || echo '127.0.0.1 localhost'; } |
    sed '/# its own name, by clusterkit$/d' > /etc/hosts.clusterkit
  printf '127.0.1.1\\t%s\\t# its own name, by clusterkit\\n' "$name" >> /etc/hosts.clusterkit
  chmod 0644 /etc/hosts.clusterkit
  mv -f /etc/hosts.clusterkit /etc/hosts
fi
"""
#: The new key takes the place of all others; user-data that told the first one is removed.
_TAKE_KEY = """\
new=/etc/ssh/clusterkit_new_key
if [ -e $new ]; then
  for old in /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub; do
    case $old in */ssh_host_ed25519_key*) ;; *) rm -f "$old" ;; esac
  done
  cp -p $new.pub /etc/ssh/ssh_host_ed25519_key.pub
  mv $new /etc/ssh/ssh_host_ed25519_key
fi
rm -f $new.pub
systemctl reload ssh 2>/dev/null || systemctl reload sshd
find /var/lib/cloud/instances -type f 2>/dev/null | while read -r file; do
  case $file in *user-data*|*cloud-config.txt|*/obj.pkl) rm -f "$file" ;; esac
done
# A seed without its user-data would be none: the next boot would be a new machine's, with new keys.
find /var/lib/cloud/seed -type f -name user-data 2>/dev/null | while read -r file; do
  echo '#cloud-config' > "$file"
done
mkdir -p /var/lib/clusterkit
echo yes > /var/lib/clusterkit/rotated
"""


def _rotate(identity: Identity, machine: str, address: Address) -> str:
    """Replace the machine's host keys by one made on it, and name it; the new public key.

    Killed at any point it can be repeated: until the end both keys are believed.
    """
    transport = Ssh(address, become=True)
    made = transport.run(["sh", "-s"], input=_NEW_KEY.encode()).text
    public = " ".join(made.split()[:2])
    identity.believe(machine, {public})
    # Keys that a takeover found let in nowhere, also not in homes that were not mounted then.
    former = ["sh", "-c", takeover.FORMER_SCRIPT, "sh", identity.public_key]
    script = f"{_name(machine)}{shlex.join(former)} < /dev/null\n{_TAKE_KEY}"
    transport.run(["sh", "-s"], input=script.encode())
    identity.believe(machine, {public}, instead=True)
    return public


def _name(machine: str) -> str:
    """The script that gives a machine its name."""
    return f"set -eu\nname={shlex.quote(machine)}\n{_NAME}"


def _stranger(provider: Provider) -> str:
    """Why a machine that was made elsewhere is not logged in to, and what to do."""
    words = (
        "its host key is not known on this computer, so nobody here can tell whether it is the "
        "machine itself that answers: it was made from another computer, or this one's "
        f"{provider.identity.known_hosts} was lost."
    )
    if provider.name not in CLOUDS:
        return f"{words} `clusterkit stop {provider.cluster}` ends it."
    return (
        f"{words} `clusterkit adopt {provider.cluster}` brings new keys into it through the cloud. "
        f"Or end it there: `clusterkit start {provider.cluster} --replace` makes a new one."
    )


def _indented(text: str) -> str:
    return "".join(f"\n  {line}" for line in text.splitlines())
