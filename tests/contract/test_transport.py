"""What every transport must do. A new transport is one more parameter here."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sshd import SSHD, server

from clusterkit.errors import CommandFailed, TransportError
from clusterkit.transport import Local, Ssh, Transport


@pytest.fixture(scope="module")
def over_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    if SSHD is None:
        pytest.skip("no sshd on this machine (Debian: openssh-server)")
    with server(tmp_path_factory.mktemp("ssh") / "d") as running:
        ssh = Ssh(running.address)
        yield ssh
        ssh.close()


@pytest.fixture(params=["local", "ssh"])
def transport(request: pytest.FixtureRequest) -> Transport:
    if request.param == "local":
        return Local()
    ssh = request.getfixturevalue("over_ssh")
    assert isinstance(ssh, Ssh)
    return ssh


@pytest.fixture(params=["rsync", "tar"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rsync, and as if this machine had none."""
    if request.param == "tar":
        monkeypatch.setattr("clusterkit.transport.transfer.rsync_here", lambda: False)


def test_run_gives_output_as_bytes(transport: Transport) -> None:
    done = transport.run(["sh", "-c", "cat; printf '\\377' >&2"], input=b"a\0\xfe")
    assert (done.stdout, done.stderr, done.returncode) == (b"a\0\xfe", b"\xff", 0)
    assert done.text == "a\0\ufffd"


def test_arguments_arrive_as_they_are(transport: Transport) -> None:
    hostile = [
        "",
        "two\n\n",
        " a  b ",
        "$(id)",
        "`id`",
        "'\"",
        "l1\nl2",
        "é☃",
        "-n",
        "*",
        "\\",
        "~",
        "!x",
    ]
    done = transport.run(["printf", "%s\\0", *hostile])
    assert done.stdout.decode().split("\0")[:-1] == hostile


def test_the_environment_is_added_to(transport: Transport) -> None:
    done = transport.run(["sh", "-c", 'echo "$ONE ${PATH:+more}"'], env={"ONE": "a 'b'\n$x"})
    assert done.text == "a 'b'\n$x more\n"


def test_cwd(transport: Transport, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    assert transport.run(["pwd"], cwd=str(folder)).text.strip() == str(folder)
    with pytest.raises(CommandFailed, match="gone") as caught:
        transport.run(["pwd"], cwd=str(folder / "gone"))
    assert caught.value.returncode == 127


def test_a_failure_carries_the_commands_words(transport: Transport) -> None:
    with pytest.raises(CommandFailed, match="sh: exit code 3: why it failed") as caught:
        transport.run(["sh", "-c", "echo out; echo why it failed >&2; exit 3"])
    assert (caught.value.returncode, caught.value.stdout) == (3, "out\n")
    assert transport.run(["false"], check=False).returncode == 1


def test_every_exit_code_is_the_commands_own(transport: Transport) -> None:
    """255 is ssh's own word for a connection that broke."""
    for code in (1, 93, 127, 255):
        done = transport.run(["sh", "-c", f"echo words >&2; exit {code}"], check=False)
        assert (done.returncode, done.stderr) == (code, b"words\n")
    with (
        pytest.raises(CommandFailed, match=r"exit code 255: words$"),
        transport.stream(["sh", "-c", "echo words >&2; exit 255"]) as stream,
    ):
        stream.read()


def test_a_killed_command_fails(transport: Transport) -> None:
    with pytest.raises(CommandFailed) as caught:
        transport.run(["sh", "-c", "kill -9 $$"])
    assert caught.value.returncode in (-9, 137)


def test_much_of_everything(transport: Transport) -> None:
    data = os.urandom(1 << 16) * 64
    done = transport.run(["sh", "-c", "cat; yes | head -n 300000 >&2"], input=data)
    assert done.stdout == data
    assert len(done.stderr) == 600000


def test_a_lock_is_held_as_long_as_the_command(transport: Transport, tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        begun, go = tmp_path / "begun", tmp_path / "go"
        os.mkfifo(go)
        argv = ["sh", "-c", 'touch "$1"; cat "$2"', "sh", str(begun), str(go)]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(transport.run, argv, holding=[write])
            deadline = time.monotonic() + 120
            while not begun.exists() and not running.done():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.close(write)
            held = not select.select([read], [], [], 0)[0]
            go.write_text("")
            running.result()
        assert held  # the command's process had it open
        assert os.read(read, 1) == b""  # and nobody after it
    finally:
        os.close(read)


def test_a_missing_program(transport: Transport) -> None:
    with pytest.raises(CommandFailed) as caught:
        transport.run(["nowhere-to-be-found"])
    assert caught.value.returncode == 127


def test_a_time_out_has_no_exit_code(transport: Transport) -> None:
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match=r"no end after 0\.2 s: begun") as caught:
        transport.run(["sh", "-c", "echo begun >&2; exec sleep 60"], timeout=0.2)
    assert caught.value.returncode is None
    assert time.monotonic() - begun < 5


def test_put_is_all_or_nothing(transport: Transport, tmp_path: Path) -> None:
    script = tmp_path / "s.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    target = tmp_path / "deep" / "er"
    transport.put({"a b/é": b"1", "s.sh": script}, str(target))
    assert (target / "a b" / "é").read_bytes() == b"1"
    assert os.access(target / "s.sh", os.X_OK)
    transport.put({"other": b"2"}, str(target))  # it is there already: left as it is
    assert sorted(path.name for path in target.iterdir()) == ["a b", "s.sh"]
    with pytest.raises(TransportError, match="cannot be written"):
        transport.put({"x": b"", "gone": tmp_path / "nowhere"}, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_put_keeps_modes_links_and_awkward_names(transport: Transport, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(200_000))
    secret.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to("deep/long")
    long = "x" * 120
    target = tmp_path / "a 'target' \n é"
    names = {f"deep/{long}/{long}": b"1", "long": b"text\n" * 50_000, "-n": b"", "s": secret}
    transport.put({**names, "link": link, "end": b"mine"}, str(target))
    assert (target / "deep" / long / long).read_bytes() == b"1"
    assert (target / "long").stat().st_size == 250_000
    assert (target / "s").read_bytes() == secret.read_bytes()
    assert (target / "s").stat().st_mode & 0o777 == 0o600
    assert (target / "link").is_symlink()
    assert (target / "end").read_bytes() == b"mine"
    assert target.stat().st_mode & 0o777 == 0o755


def test_put_where_nothing_can_be(transport: Transport, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TransportError, match=r"file/sub/x.*cannot be written"):
        transport.put({"a": b"1"}, str(tmp_path / "file" / "sub" / "x"))


def test_puts_at_once_make_one_whole_folder(transport: Transport, tmp_path: Path) -> None:
    target = tmp_path / "it"

    def put(letter: str) -> None:
        transport.put({name: letter.encode() * 4096 for name in "abc"}, str(target))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, "wxyz"))
    assert sorted(path.name for path in target.iterdir()) == ["a", "b", "c"]
    assert len({path.read_bytes() for path in target.iterdir()}) == 1
    assert not list(tmp_path.glob(".*"))


def a_tree(folder: Path) -> dict[str, bytes]:
    """A folder with what may be in one: its files' contents by name."""
    (folder / "a b" / "é \U0001f600").mkdir(parents=True)
    (folder / "empty").mkdir()
    files = {"a b/é \U0001f600/x'y": b"1", "-n": b"2", "a b/$(id)": b"3" * 100_000, "l1\nl2": b"4"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "-n").chmod(0o751)
    (folder / "link").symlink_to("a b")
    (folder / "nowhere").symlink_to("/nowhere/at all")
    return files


def is_a_tree(folder: Path, files: dict[str, bytes]) -> None:
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert (folder / "-n").stat().st_mode & 0o777 == 0o751
    assert (folder / "empty").is_dir()
    assert (folder / "link").readlink() == Path("a b")
    assert (folder / "nowhere").readlink() == Path("/nowhere/at all")


@pytest.mark.usefixtures("either_way")
def test_push_and_pull_a_folder(transport: Transport, tmp_path: Path) -> None:
    source, far, back = tmp_path / "the source", tmp_path / "é far" / "x y", tmp_path / "back"
    files = a_tree(source)
    transport.push(source, str(far))  # as it: it was not there
    is_a_tree(far, files)
    transport.push(source, str(far))  # into it: it is
    is_a_tree(far / "the source", files)
    transport.pull(str(far / "the source"), back)
    is_a_tree(back, files)
    transport.pull(str(far / "the source"), back)
    is_a_tree(back / "the source", files)


@pytest.mark.usefixtures("either_way")
def test_update_copies_into_the_folder_itself(transport: Transport, tmp_path: Path) -> None:
    source, far, back = tmp_path / "s", tmp_path / "f", tmp_path / "b"
    files = a_tree(source)
    for _ in range(2):
        transport.push(source, str(far), update=True)
        transport.pull(str(far), back, update=True)
    is_a_tree(far, files)
    is_a_tree(back, files)
    (source / "-n").write_bytes(b"new")
    (far / "of theirs").write_bytes(b"stays")
    (source / "l1\nl2").unlink()  # stays on the other side
    transport.push(source, str(far), update=True)
    is_a_tree(far, {**files, "-n": b"new", "of theirs": b"stays"})
    assert not (far / "s").exists()
    (back / "mine").write_bytes(b"stays")
    transport.pull(str(far), back, update=True)
    is_a_tree(back, {**files, "-n": b"new", "of theirs": b"stays", "mine": b"stays"})


@pytest.mark.usefixtures("either_way")
def test_push_and_pull_a_file(transport: Transport, tmp_path: Path) -> None:
    source = tmp_path / "a 'b'"
    source.write_bytes(b"1")
    source.chmod(0o740)
    folder = tmp_path / "folder é"
    folder.mkdir()
    for update in (False, True):
        transport.push(source, str(folder), update=update)
        assert (folder / "a 'b'").read_bytes() == b"1"
        other = tmp_path / f"new {update}" / "name"
        transport.push(source, str(other), update=update)
        assert other.read_bytes() == b"1"
        assert other.stat().st_mode & 0o777 == 0o740
        back = tmp_path / f"back {update}"
        transport.pull(str(other), back, update=update)
        assert back.read_bytes() == b"1"
        back.write_bytes(b"2")
        link = tmp_path / f"link {update}"
        link.symlink_to(back)
        transport.pull(str(link), folder, update=update)  # a link that is named is followed
        assert not (folder / link.name).is_symlink()
        assert (folder / link.name).read_bytes() == b"2"


@pytest.mark.usefixtures("either_way")
def test_same_size_and_time_prove_nothing_without_update(
    transport: Transport, tmp_path: Path
) -> None:
    source, far = tmp_path / "s", tmp_path / "f"
    source.write_bytes(b"1")
    far.write_bytes(b"2")
    os.utime(source, ns=(10**18, 10**18))
    os.utime(far, ns=(10**18, 10**18))
    transport.push(source, str(far))
    assert far.read_bytes() == b"1"


@pytest.mark.usefixtures("either_way")
def test_copying_what_is_not_there(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="nowhere"):
        transport.push(tmp_path / "nowhere", str(tmp_path / "x"))
    with pytest.raises(TransportError, match="nowhere"):
        transport.pull(str(tmp_path / "nowhere"), tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(TransportError, match="file"):
        transport.push(tmp_path / "file", str(tmp_path / "file" / "x"))
    with pytest.raises(TransportError, match="file"):
        transport.pull(str(tmp_path / "file"), tmp_path / "file" / "x" / "y")
    assert not (tmp_path / "x").exists()


def test_a_stream_is_read_while_the_command_runs(transport: Transport) -> None:
    argv = ["sh", "-c", "read line; echo got $line; cat > /dev/null; echo never read"]
    with transport.stream(argv, input=b"hello\n") as stream:
        assert stream.readline() == b"got hello\n"


def test_leaving_a_stream_ends_its_command(transport: Transport, tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = tmp_path / "ended"
    argv = ["sh", "-c", 'echo 1; cat; touch "$1"', "sh", str(ended)]
    with transport.stream(argv) as stream:
        stream.readline()
    assert time.monotonic() - begun < 4


def test_a_stream_whose_command_fails(transport: Transport) -> None:
    with (
        pytest.raises(CommandFailed, match="exit code 4: its words"),
        transport.stream(["sh", "-c", "echo its words >&2; exit 4"]) as stream,
    ):
        assert stream.read() == b""


def test_a_stream_whose_command_ends_before_it_reads(transport: Transport) -> None:
    """Its input cannot be written; that is no reason to hide why."""
    with (
        pytest.raises(CommandFailed, match="exit code 2"),
        transport.stream(["python3", "/nowhere.py"], input=b"x" * (1 << 20)) as stream,
    ):
        stream.read()


def test_a_stream_of_a_missing_program(transport: Transport) -> None:
    with (
        pytest.raises(CommandFailed, match="nowhere-to-be-found"),
        transport.stream(["nowhere-to-be-found"]),
    ):
        pass
