"""What every transport must do. A new transport is one more parameter here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clusterkit.errors import CommandFailed, TransportError
from clusterkit.transport import Local, Transport


@pytest.fixture(params=["local"])
def transport(request: pytest.FixtureRequest) -> Transport:
    return {"local": Local}[request.param]()


def test_run_gives_output_as_bytes(transport: Transport) -> None:
    done = transport.run(["sh", "-c", "cat; printf '\\377' >&2"], input=b"a\0\xfe")
    assert (done.stdout, done.stderr, done.returncode) == (b"a\0\xfe", b"\xff", 0)
    assert done.text == "a\0\ufffd"


def test_arguments_arrive_as_they_are(transport: Transport) -> None:
    hostile = ["", " a  b ", "$(id)", "`id`", "'\"", "l1\nl2", "é☃", "-n", "*", "\\", "~", "!x"]
    done = transport.run(["printf", "%s\\0", *hostile])
    assert done.stdout.decode().split("\0")[:-1] == hostile


def test_the_environment_is_added_to(transport: Transport) -> None:
    done = transport.run(["sh", "-c", 'echo "$ONE $HOME"'], env={"ONE": "a 'b'"})
    assert done.text == f"a 'b' {os.environ['HOME']}\n"


def test_cwd(transport: Transport, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    assert transport.run(["pwd"], cwd=str(folder)).text.strip() == str(folder)


def test_a_failure_carries_the_commands_words(transport: Transport) -> None:
    with pytest.raises(CommandFailed, match="sh: exit code 3: why it failed") as caught:
        transport.run(["sh", "-c", "echo out; echo why it failed >&2; exit 3"])
    assert (caught.value.returncode, caught.value.stdout) == (3, "out\n")
    assert transport.run(["false"], check=False).returncode == 1


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


def test_a_stream_is_read_while_the_command_runs(transport: Transport) -> None:
    argv = ["sh", "-c", "read line; echo got $line; cat > /dev/null; echo never read"]
    with transport.stream(argv, input=b"hello\n") as stream:
        assert stream.readline() == b"got hello\n"


def test_leaving_a_stream_ends_its_command(transport: Transport, tmp_path: Path) -> None:
    begun = time.monotonic()
    with transport.stream(["sh", "-c", "echo 1; cat; touch ended"]) as stream:
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
