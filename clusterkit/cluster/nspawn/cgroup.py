"""A control group for each host.

A systemd host needs a hierarchy that it may write, and none that it shares with another host: two
that did would end each other's services. Where process 1 is systemd, each host is a unit of it with
a delegated group. Elsewhere the host's processes mount the unified hierarchy for themselves (in
their own mount namespace, so that nothing of this machine changes, cgroup v1 or not) and enter a
group of their own in it: clusterkit-<cluster id>/<host>.
"""

from __future__ import annotations

from clusterkit.transport import Local

#: Where the unified hierarchy is, in the hosts' own mount namespace.
ROOT = "/sys/fs/cgroup"
_MOUNTED = f'mount -t cgroup2 cgroup2 {ROOT} && [ -d "{ROOT}/$1" ]'


def group(cluster_id: str, name: str = "") -> str:
    """The group of one host, or the one that all hosts of a cluster are in; relative to ROOT."""
    top = f"clusterkit-{cluster_id}"
    return f"{top}/{name}" if name else top


def remove(one: str) -> None:
    """Remove a group and all below it, once its processes have ended."""
    _look(one, f'find "{ROOT}/$1" -depth -type d -exec rmdir -- {{}} ";"')


def there(one: str) -> bool:
    """Whether the group exists."""
    return _look(one, ":")


def _look(one: str, then: str) -> bool:
    script = f"{_MOUNTED} && {then}"
    done = Local().run(["unshare", "--mount", "sh", "-c", script, "sh", one], check=False)
    return done.returncode == 0
