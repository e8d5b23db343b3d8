"""Processes of this machine: to their end, or as a stream. Local and Ssh are made of these."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from typing import IO

from clusterkit.errors import CommandFailed
from clusterkit.transport.base import Completed, Stream

#: Looks at an ended command (exit code, standard error) before anybody else: it may raise, or
#: take away what the transport itself has added to standard error.
Judge = Callable[[int, bytes], bytes]


def completed(
    argv: Sequence[str],
    shown: Sequence[str],
    *,
    judge: Judge,
    data: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
    check: bool = True,
    holding: Sequence[int] = (),
) -> Completed:
    """Run `argv` to its end; errors speak of `shown`, the command as the caller gave it."""
    try:
        done = subprocess.run(
            list(argv),
            input=data,
            capture_output=True,
            env=environment(env),
            cwd=cwd,
            timeout=timeout,
            check=False,
            pass_fds=holding,
        )
    except FileNotFoundError as error:
        raise CommandFailed(shown, 127, "", f"{error.filename}: not found") from error
    except OSError as error:
        raise CommandFailed(shown, 126, "", f"{error.filename}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        out, err = (
            part.decode(errors="replace") if part else "" for part in (error.stdout, error.stderr)
        )
        raise CommandFailed(shown, None, out, err, f"no end after {timeout:g} s") from error
    words = judge(done.returncode, done.stderr)
    result = Completed(tuple(shown), done.returncode, done.stdout, words)
    if check and done.returncode != 0:
        raise CommandFailed(shown, done.returncode, result.text, result.error_text)
    return result


def fed(
    argv: Sequence[str],
    shown: Sequence[str],
    write: Callable[[IO[bytes]], None],
    judge: Judge,
) -> Completed:
    """Run `argv` to its end with what `write` writes as its standard input.

    Raises CommandFailed when it cannot be started, and the OSError of a `write` that could not
    read; what the command says about input that broke off is nobody's business then.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(list(argv), stdin=subprocess.PIPE, stdout=out, stderr=err)
        except OSError as error:
            raise CommandFailed(shown, 127, "", f"{error.filename}: {error.strerror}") from error
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it ended early: its exit code will tell why
                write(process.stdin)
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        finally:
            # After an error it sees its input end, and tidies up before we go on.
            with suppress(BrokenPipeError):
                process.stdin.close()
            end(process, 5)
        out.seek(0)
        err.seek(0)
        words = judge(process.returncode, err.read())
        return Completed(tuple(shown), process.returncode, out.read(), words)


class ProcessStream(Stream):
    """A process of this machine whose output is read while it runs.

    `before` is called first (a connection is made there); `left_first` are the exit codes of a
    command that ended because nobody read it any more.
    """

    def __init__(
        self,
        argv: Sequence[str],
        shown: Sequence[str],
        data: bytes,
        env: Mapping[str, str] | None,
        *,
        judge: Judge,
        left_first: tuple[int, ...],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._argv = list(argv)
        self._shown = list(shown)
        self._data = data
        self._env = environment(env)
        self._judge = judge
        self._left_first = left_first
        self._before = before

    def __enter__(self) -> BufferedReader:
        self._before()
        self._stderr = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=self._env,
            )
        except OSError as error:
            self._stderr.close()
            raise CommandFailed(
                self._shown, 127, "", f"{error.filename}: {error.strerror}"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # stdin stays open: its end tells the command that nobody listens any more.
        with suppress(BrokenPipeError):  # it has ended already: its exit code will tell why
            self._process.stdin.write(self._data)
            self._process.stdin.flush()
        assert isinstance(self._process.stdout, BufferedReader)
        return self._process.stdout

    def __exit__(self, *exc: object) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        end(process, 5)
        self._stderr.seek(0)
        words = self._stderr.read()
        self._stderr.close()
        if exc[0] is None and process.returncode not in (0, *self._left_first):
            words = self._judge(process.returncode, words)
            raise CommandFailed(self._shown, process.returncode, "", words.decode(errors="replace"))


def as_it_is(_returncode: int, words: bytes) -> bytes:
    """The judge of a command that nothing stands before."""
    return words


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process that has been told to end, and kill it after `seconds`."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment(added: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if added is None else {**os.environ, **added}
