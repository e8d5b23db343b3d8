"""This machine as a transport."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from clusterkit.errors import CommandFailed, TransportError
from clusterkit.transport import copying, processes
from clusterkit.transport.base import Completed, Content, Stream, Transport

_SIGPIPE = -13


class Local(Transport):
    """This machine."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float = 60.0,
        check: bool = True,
        holding: Sequence[int] = (),
    ) -> Completed:
        return processes.completed(
            argv,
            argv,
            data=input,
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=check,
            holding=holding,
            judge=processes.as_it_is,
        )

    def stream(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",  # noqa: A002
        env: Mapping[str, str] | None = None,
    ) -> Stream:
        return processes.ProcessStream(
            argv, argv, input, env, judge=processes.as_it_is, left_first=(_SIGPIPE,)
        )

    def put(self, files: Mapping[str, Content], folder: str) -> None:
        target = Path(folder)
        if target.exists():
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with copying.beside(target) as staging:
                for name, content in files.items():
                    file = staging / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if isinstance(content, Path):
                        shutil.copy(content, file, follow_symlinks=False)
                    else:
                        file.write_bytes(content)
                try:
                    staging.rename(target)
                except OSError:
                    if not target.is_dir():  # else: another one was faster, with the same content
                        raise
        except OSError as error:
            raise TransportError(f"{folder}: cannot be written: {error.strerror}") from error

    def interactive(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        try:
            return subprocess.run(
                list(argv), env=processes.environment(env), check=False
            ).returncode
        except OSError as error:
            raise CommandFailed(argv, 127, "", f"{error.filename}: {error.strerror}") from error

    def push(self, local: Path, target: str, *, update: bool = False) -> None:
        copying.copy(local, Path.home() / target, update=update)

    def pull(self, source: str, local: Path, *, update: bool = False) -> None:
        copying.copy(Path.home() / source, local, update=update)
