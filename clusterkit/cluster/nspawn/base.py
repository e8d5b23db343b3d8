"""The image that hosts start from: made once with debootstrap, shared by all, never written again.

<images>/
  <release>-<digest>/          the base: a minimal system with systemd, sshd, Python and cloud-init
  <release>-<digest>-slurm/    a layer over it: SLURM's packages, so that set-up need not fetch them
  .<either>.lock, .<either>.part

The digest is that of the recipe: release, mirror, packages, and the version of the steps below. An
image is made in its .part folder and renamed when it is whole; what a killed maker left is removed
by the next one. A lock that the maker's commands hold too keeps two from making the same one.
Nothing secret and nothing unique is in an image: no host key, no machine id, no munge key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clusterkit.cluster.nspawn import surroundings
from clusterkit.cluster.nspawn.releases import RELEASES
from clusterkit.cluster.nspawn.sources import Sources, sources
from clusterkit.cluster.nspawn.surroundings import File
from clusterkit.cluster.providers import Say
from clusterkit.errors import ClusterError, CommandFailed
from clusterkit.transport import Local

#: Raise it with every change of what an image holds.
_VERSION = 2
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "sudo", "iproute2",
    "ca-certificates", "cloud-init", "rsync",
)  # fmt: skip
#: What the roles install on heads and workers; with it in, set-up only configures.
_SLURM = ("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server")
#: Minutes that the two steps take on an ordinary machine, for words alone.
MINUTES = {"base": 2, "slurm": 1}

_ENVIRONMENT = (
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND=noninteractive",
    "LC_ALL=C.UTF-8",
    "HOME=/root",
)
# Its mounts are in a mount namespace of the command, so that they go with it, however it ends.
_CHROOT = (
    'if [ -n "$1" ]; then mount -t overlay clusterkit -o "$1" "$2"; fi && '
    'mount -t proc proc "$2/proc" && mount --bind /dev "$2/dev" && shift && exec chroot "$@"'
)
# The modules that user-data needs, and no others: each stage of cloud-init costs a start of Python.
# One key a line: ds-identify, which decides whether cloud-init runs at all, is no reader of YAML.
_CLOUD = """\
datasource_list: [ NoCloud ]
network: {config: disabled}
cloud_init_modules: [bootcmd, write_files, set_hostname, users_groups, ssh, set_passwords]
cloud_config_modules: [runcmd]
cloud_final_modules: [package_update_upgrade_install, scripts_user]
"""
_NO_DAEMONS = "#!/bin/sh\nexit 101\n"  # policy-rc.d: a package starts nothing while it is installed


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of. `prepared`: SLURM's packages are in a second layer.

    `mirror` is that of the release's main archive; None: the one that this machine uses, where it
    runs the same distribution, else the distribution's own.
    """

    image: str = "debian-12"
    mirror: str | None = None
    prepared: bool = False

    @property
    def codename(self) -> str:
        return RELEASES[self.image]

    def names(self) -> tuple[str, ...]:
        """The folders it needs, in the order in which they are made."""
        said = json.dumps([_VERSION, self.image, self.mirror, _PACKAGES, _SLURM, _CLOUD])
        base = f"{self.image}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
        return (base, f"{base}-slurm") if self.prepared else (base,)

    def minutes(self, images: Path) -> int:
        """About how long making what is missing will take; 0 when nothing is."""
        steps = zip(self.names(), MINUTES.values(), strict=False)
        return sum(minutes for name, minutes in steps if not (images / name).is_dir())


def prepare(recipe: Recipe, images: Path, say: Say) -> tuple[Path, ...]:
    """Make what is missing; the lower layers for an overlay mount, the topmost first.

    Raises ClusterError with the last words of the step that failed.
    """
    check(recipe, images)
    try:
        images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"{images} cannot be made: {error.strerror}") from error
    made: list[Path] = []
    for name in recipe.names():
        folder = images / name
        if not folder.is_dir():
            with _locked(images / f".{name}.lock", say, name) as lock:
                if not folder.is_dir():  # else: another one made it meanwhile
                    _make(recipe, folder, tuple(made), lock, say)
        made.insert(0, folder)
    return tuple(made)


def check(recipe: Recipe, images: Path) -> None:
    """Raise ClusterError when the image is missing and could not be made here."""
    keyring = sources(recipe.image, recipe.mirror).keyring_file
    if recipe.minutes(images) and not keyring.is_file():
        package = sources(recipe.image, recipe.mirror).keyring_package
        raise ClusterError(
            f"the image {recipe.image} cannot be made: {keyring}, with the keys that its archive "
            f"is signed with, is missing here. `apt-get install {package}` installs it, where "
            "this machine's distribution has it; else choose another image."
        )


def _make(recipe: Recipe, folder: Path, lower: tuple[Path, ...], lock: int, say: Say) -> None:
    part = folder.with_name(f".{folder.name}.part")
    remove_tree(part)
    part.mkdir(mode=0o700)
    step = "slurm" if lower else "base"
    say(f"image {folder.name}: made once, about {MINUTES[step]} min")
    try:
        tree = _slurm(part, lower, lock) if lower else _base(recipe, part, lock)
    except CommandFailed as error:
        log = part / "tree/debootstrap/debootstrap.log"
        words = log.read_text(errors="replace")[-1500:] if log.is_file() else ""
        raise ClusterError(
            f"the image {recipe.image} could not be made: {error}\n{words}".rstrip()
            + "\nIs its mirror within reach? Another one can be named as `mirror:`."
        ) from error
    tree.rename(folder)
    remove_tree(part)


def _base(recipe: Recipe, part: Path, lock: int) -> Path:
    tree = part / "tree"
    archive = sources(recipe.image, recipe.mirror)
    keyring = archive.keyring_file
    argv = ["debootstrap", "--variant=minbase", f"--keyring={keyring}", "--include=ca-certificates"]
    argv += [f"--components={','.join(archive.components)}", recipe.codename, str(tree)]
    argv += [archive.mirror]
    scripts = Path("/usr/share/debootstrap/scripts")
    if not (scripts / recipe.codename).exists():  # a release that is younger than debootstrap
        argv.append(str(scripts / archive.script))
    _run(argv, lock)
    _configure(tree, archive, keyring)
    _surround(tree)
    _install(tree, "", _PACKAGES, lock)
    # Before its first start a host knows no name but these.
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
    _chroot(tree, "", ["systemctl", "enable", "systemd-networkd.service"], lock)
    masked = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer"]
    masked += ["console-getty.service", "getty@tty1.service", "systemd-resolved.service"]
    masked += ["dpkg-db-backup.timer", "systemd-firstboot.service", "e2scrub_reap.service"]
    _chroot(tree, "", ["systemctl", "mask", *masked], lock)
    _clean(tree)
    (tree / "etc/machine-id").write_text("")
    tree.chmod(0o755)
    return tree


def _slurm(part: Path, lower: tuple[Path, ...], lock: int) -> Path:
    tree = part / "tree"
    for name in ("tree", "work", "root"):
        (part / name).mkdir(mode=0o755)
    layers = ":".join(map(str, lower))
    options = f"lowerdir={layers},upperdir={tree},workdir={part / 'work'}"
    root = part / "root"
    put_file(tree, File("usr/sbin/policy-rc.d", _NO_DAEMONS.encode(), 0o755))
    _surround(tree)
    _install(root, options, _SLURM, lock)
    # `disable` is remembered, so that the roles decide what runs on which host.
    units = ["slurmctld", "slurmd", "slurmdbd", "munge", "mariadb"]
    _chroot(root, options, ["systemctl", "disable", *units], lock)
    # A secret, and one that all hosts would share.
    (tree / "etc/munge/munge.key").unlink(missing_ok=True)
    _clean(tree)
    return tree


def _configure(tree: Path, archive: Sources, keyring: Path) -> None:
    """What the base holds besides packages, and what installing them takes."""
    put = {"usr/sbin/policy-rc.d": (_NO_DAEMONS.encode(), 0o755)}
    put["etc/apt/sources.list.d/clusterkit.sources"] = (archive.text().encode(), 0o644)
    put[f"usr/share/keyrings/{keyring.name}"] = (keyring.read_bytes(), 0o644)
    put["etc/apt/apt.conf.d/90clusterkit"] = (b'Acquire::Languages "none";\n', 0o644)
    put["etc/cloud/cloud.cfg.d/99-clusterkit.cfg"] = (_CLOUD.encode(), 0o644)
    put["etc/default/locale"] = (b"LANG=C.UTF-8\n", 0o644)
    for name, (content, mode) in put.items():
        put_file(tree, File(name, content, mode))
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)


def _surround(tree: Path) -> None:
    """So that apt in the tree reaches what it reaches here. Hosts get these files anew."""
    for file in surroundings.read().files:
        put_file(tree, file)


def _install(root: Path, options: str, packages: list[str] | tuple[str, ...], lock: int) -> None:
    _chroot(root, options, ["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"], lock)
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    argv += ["-o", "Dpkg::Options::=--force-unsafe-io", "-o", "Dpkg::Options::=--force-confold"]
    _chroot(root, options, [*argv, *packages], lock)
    _chroot(root, options, ["apt-get", "clean"], lock)


def _clean(tree: Path) -> None:
    for pattern in (
        "etc/ssh/ssh_host_*", "usr/sbin/policy-rc.d", "var/log/*.log", "var/log/apt/*",
        "var/log/dpkg*", "var/lib/dbus/machine-id", "etc/resolv.conf",
        "var/lib/systemd/random-seed",
    ):  # fmt: skip
        for file in tree.glob(pattern):
            file.unlink()


def _chroot(root: Path, options: str, argv: list[str], lock: int) -> None:
    """Run `argv` in the tree; with overlay `options`, in that overlay mounted on it."""
    variables = [f"{key}={value}" for key, value in surroundings.read().environment.items()]
    inside = ["env", "-i", *_ENVIRONMENT, *variables, *argv]
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    _run([*alone, "sh", "-c", _CHROOT, "sh", options, str(root), *inside], lock)


def _run(argv: list[str], lock: int) -> None:
    Local().run(argv, env={"LC_ALL": "C.UTF-8"}, timeout=3600, holding=[lock])


@contextlib.contextmanager
def _locked(file: Path, say: Say, name: str) -> Iterator[int]:
    """The only maker of an image; waits for another one to finish."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"image {name}: waiting for another clusterkit that makes it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def put_file(root: Path, file: File) -> None:
    """Write a file into a tree, or into the upper layer of one."""
    target = root / file.path.lstrip("/")
    for parent in reversed(target.relative_to(root).parents):
        folder = root / parent
        if not folder.is_dir():
            # The modes of folders in an upper layer hide those of the layers below.
            folder.mkdir()
            folder.chmod(0o755)
    target.write_bytes(file.content)
    target.chmod(file.mode)


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours; nothing to do when it is not there. Raises ClusterError."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ClusterError(f"{error.filename} cannot be removed: {error.strerror}") from error
