"""SQLite through SQLAlchemy 2: every query in one class.

SQLAlchemy's Core, not its ORM: see docs/decisions/0002-core-not-orm.md.
"""

from __future__ import annotations

import difflib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from clusterkit.errors import Busy, StoreError, UnknownExperiment
from clusterkit.records import (
    Environment,
    Experiment,
    Grid,
    Snapshot,
    Submission,
    TaskRow,
    TaskState,
)
from clusterkit.store import schema
from clusterkit.store.news import JournalNews, Progress

__all__ = ["JournalNews", "Progress", "Store"]

_TASK_FIELDS = [column for column in schema.tasks.columns if column.name != "experiment"]


class Store:
    """All that clusterkit remembers. One connection a call; nothing waits inside a transaction."""

    def __init__(self, database: Path) -> None:
        """Open the database, making or upgrading it when needed.

        Raises StoreError when it cannot be opened, is damaged, or is a newer version's.
        """
        self._path = database
        self._engine = sa.create_engine(
            f"sqlite:///{database}", isolation_level="AUTOCOMMIT", connect_args={"timeout": 30.0}
        )
        sa.event.listen(self._engine, "connect", _configure)
        with self._errors():
            self._bring_up_to_date()

    # ---- experiments -------------------------------------------------------------------------

    def add_experiment(
        self,
        experiment: Experiment,
        *,
        grid: Grid,
        snapshot: Snapshot,
        environment: Environment,
        plan: Mapping[str, Any],
        submissions: Sequence[Submission],
    ) -> None:
        """Record an experiment, its tasks and what is about to be submitted, all or nothing."""
        row = asdict(experiment) | {
            "created": experiment.created.timestamp(),
            "axes": list(experiment.axes),
            "grid": grid.text,
            "diff": snapshot.diff,
            "environment": asdict(environment) | {"packages": dict(environment.packages)},
            "plan": dict(plan),
        }
        with self._transaction() as connection:
            connection.execute(schema.experiments.insert(), row)
            connection.execute(schema.submissions.insert(), [asdict(s) for s in submissions])
            connection.execute(
                schema.tasks.insert(),
                [
                    {
                        "experiment": experiment.id,
                        "index": index,
                        "point": point.id,
                        "params": point.params,
                        "state": TaskState.PENDING,
                        "attempt": 0,
                    }
                    for index, point in enumerate(grid.points)
                ],
            )

    def experiments(self) -> list[Experiment]:
        """All of them, the newest first."""
        query = sa.select(schema.experiments).order_by(schema.experiments.c.created.desc())
        with self._reading() as connection:
            return [_experiment(row) for row in connection.execute(query)]

    def experiment(self, word: str | None) -> Experiment:
        """By id, by the beginning of an id, or by name (the newest of that name); None: the latest.

        Raises UnknownExperiment with the nearest names, or when the beginning fits several.
        """
        found = self.experiments()
        if word is None:
            if not found:
                raise UnknownExperiment(
                    "there is no experiment yet: make one with "
                    "`clusterkit parrun SCRIPT --grid grid.yaml`"
                )
            return found[0]
        for experiment in found:
            if word in (experiment.id, experiment.name):
                return experiment
        starting = [e for e in found if word and e.id.startswith(word)]
        if len(starting) == 1:
            return starting[0]
        if starting:
            several = ", ".join(f"{e.id} ({e.name})" for e in starting[:5])
            raise UnknownExperiment(f"{word!r} is the beginning of several ids: {several}")
        names = {name: e for e in reversed(found) for name in (e.name, e.id)}
        near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
        near = near or [e.id for e in found[:3]]
        hint = ", ".join(f"{names[name].id} ({names[name].name})" for name in near)
        said = f"; the nearest: {hint}" if near else ""
        raise UnknownExperiment(
            f"no experiment {word!r}{said}. `clusterkit history` lists them all."
        )

    def plan(self, experiment: str) -> dict[str, Any]:
        """What a rerun needs to know."""
        query = sa.select(schema.experiments.c.plan).where(schema.experiments.c.id == experiment)
        with self._reading() as connection:
            return dict(connection.execute(query).scalar_one())

    def has_experiment(self, experiment: str) -> bool:
        query = sa.select(schema.experiments.c.id).where(schema.experiments.c.id == experiment)
        with self._reading() as connection:
            return connection.execute(query).one_or_none() is not None

    def remove_experiment(self, experiment: str) -> None:
        """Forget an experiment and all that belongs to it."""
        table = schema.experiments
        with self._transaction() as connection:
            connection.execute(sa.delete(table).where(table.c.id == experiment))

    def set_cancelled(self, experiment: str, cancelled: bool) -> None:
        self._update(schema.experiments, {"id": experiment}, {"cancelled": cancelled})

    def counts(self) -> dict[str, dict[TaskState, int]]:
        """Tasks by state, of every experiment."""
        columns = (schema.tasks.c.experiment, schema.tasks.c.state)
        query = sa.select(*columns, sa.func.count()).group_by(*columns)
        found: dict[str, dict[TaskState, int]] = {}
        with self._reading() as connection:
            for experiment, state, count in connection.execute(query):
                found.setdefault(experiment, {})[TaskState(state)] = count
        return found

    def count(self, experiment: str) -> dict[TaskState, int]:
        """One experiment's tasks by state."""
        table = schema.tasks
        query = (
            sa.select(table.c.state, sa.func.count())
            .where(table.c.experiment == experiment)
            .group_by(table.c.state)
        )
        with self._reading() as connection:
            return {TaskState(state): count for state, count in connection.execute(query)}

    # ---- submissions -------------------------------------------------------------------------

    def begin_round(
        self, experiment: str, submissions: Sequence[Submission], tasks: Sequence[int]
    ) -> None:
        """Record a further round and that its tasks wait again, all or nothing."""
        with self._transaction() as connection:
            connection.execute(schema.submissions.insert(), [asdict(s) for s in submissions])
            connection.execute(
                sa.update(schema.experiments)
                .where(schema.experiments.c.id == experiment)
                .values(cancelled=False)
            )
            _set_states(connection, experiment, dict.fromkeys(tasks, (TaskState.PENDING, None)))

    def drop_round(self, experiment: str, number: int, tasks: Sequence[int], reason: str) -> None:
        """Take a round back that was not submitted."""
        table = schema.submissions
        with self._transaction() as connection:
            connection.execute(
                sa.delete(table).where(table.c.experiment == experiment, table.c.round == number)
            )
            _set_states(connection, experiment, dict.fromkeys(tasks, (TaskState.LOST, reason)))

    def submissions(self, experiment: str) -> list[Submission]:
        """In order of rounds and chunks."""
        table = schema.submissions
        query = (
            sa.select(table)
            .where(table.c.experiment == experiment)
            .order_by(table.c.round, table.c.chunk)
        )
        with self._reading() as connection:
            return [Submission(**row._mapping) for row in connection.execute(query)]

    def set_job_id(self, submission: Submission, job_id: int) -> Submission:
        self._update(
            schema.submissions,
            {"experiment": submission.experiment, "job_name": submission.job_name},
            {"job_id": job_id},
        )
        return replace(submission, job_id=job_id)

    @contextmanager
    def submitting(self, experiment: str) -> Iterator[int]:
        """Hold the mark that somebody is about to submit; the descriptor that carries it.

        The mark goes with the last process that has the descriptor open, however it ends. Raises
        Busy when another process has it.
        """
        mark = self._mark(experiment)
        mark.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(
                    f"another clusterkit is submitting experiment {experiment} just now: "
                    f"`clusterkit status {experiment}` shows it"
                ) from error
            yield descriptor
        finally:
            os.close(descriptor)

    def being_submitted(self, experiment: str) -> bool:
        """Whether a process, or a command that it started, holds the mark of `submitting`."""
        try:
            with self._mark(experiment).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _mark(self, experiment: str) -> Path:
        return self._path.parent / "experiments" / experiment / "submitting"

    # ---- tasks -------------------------------------------------------------------------------

    def tasks(self, experiment: str) -> list[TaskRow]:
        """One row a task, in order."""
        query = (
            sa.select(*_TASK_FIELDS)
            .where(schema.tasks.c.experiment == experiment)
            .order_by(schema.tasks.c.index)
        )
        with self._reading() as connection:
            return [
                TaskRow(**{**row._mapping, "state": TaskState(row.state)})
                for row in connection.execute(query)
            ]

    def settle(self, experiment: str, states: Mapping[int, tuple[TaskState, str]]) -> None:
        """Give tasks that no journal will speak of any more their state and its reason.

        A task that was completed meanwhile stays completed.
        """
        if states:
            with self._transaction() as connection:
                _set_states(connection, experiment, states)

    def pace(self, experiment: str) -> tuple[float, float, int] | None:
        """When the latest round's first attempt began, its last one ended, and how many ended.

        Attempts that were cut short tell nothing of the pace and do not count.
        """
        table = schema.attempts
        rounds = sa.select(sa.func.max(schema.submissions.c.round)).where(
            schema.submissions.c.experiment == experiment
        )
        ended = (TaskState.COMPLETED, TaskState.FAILED, TaskState.OUT_OF_MEMORY)
        with self._reading() as connection:
            latest = connection.execute(rounds).scalar()
            query = sa.select(
                sa.func.min(table.c.started),
                sa.func.max(table.c.ended),
                sa.func.count(table.c.ended),
            ).where(
                table.c.experiment == experiment,
                table.c.slot.startswith(f"{latest}."),
                table.c.state.in_(ended),
            )
            first, last, count = connection.execute(query).one()
            return None if first is None or last is None else (first, last, count)

    def attempts(self, experiment: str) -> dict[int, int]:
        """The number of the last attempt at each task that was tried."""
        table = schema.attempts
        query = (
            sa.select(table.c.task, sa.func.max(table.c.attempt))
            .where(table.c.experiment == experiment)
            .group_by(table.c.task)
        )
        with self._reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def series(
        self, experiment: str
    ) -> Iterator[tuple[int, int, float, float | None, dict[str, Any]]]:
        """(task, attempt, time, step, values) of every `clusterkit.log` call, in order."""
        table = schema.series
        query = (
            sa.select(table.c.task, table.c.attempt, table.c.time, table.c.step, table.c["values"])
            .where(table.c.experiment == experiment)
            .order_by(table.c.task, table.c.attempt, table.c.id)
        )
        with self._reading() as connection:
            for row in connection.execute(query):
                yield row[0], row[1], row[2], row[3], row[4]

    # ---- harvest -----------------------------------------------------------------------------

    def offsets(self, experiment: str) -> dict[str, int]:
        """How many bytes of each journal are in."""
        table = schema.journals
        query = sa.select(table.c.name, table.c.offset).where(table.c.experiment == experiment)
        with self._reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def apply(self, experiment: str, news: Iterable[JournalNews]) -> int:
        """Take in what journals say, in one transaction; how many records were new.

        News that another harvest brought in meanwhile are left out, so nothing is in twice.
        """
        with self._transaction() as connection:
            progress = Progress(experiment, _TransactionRows(connection, experiment))
            for item in news:
                progress.take(item)
            progress.write()
            return progress.records

    # ---- inside ------------------------------------------------------------------------------

    def _update(self, table: sa.Table, where: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        conditions = [table.c[key] == value for key, value in where.items()]
        with self._transaction() as connection:
            connection.execute(sa.update(table).where(*conditions).values(**values))

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._errors(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                with suppress(sa.exc.DBAPIError):  # a full disk has rolled it back already
                    connection.exec_driver_sql("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError as error:
            raise StoreError(f"{self._path}: {error.orig}") from error
        except sa.exc.DBAPIError as error:
            words = str(error.orig)
            hint = {
                "database or disk is full": "free some space and repeat the command",
                "disk I/O error": "look at the disk (space, health), and repeat the command",
                "database is locked": "another clusterkit has been writing for 30 s; repeat later",
                "file is not a database": "it is damaged or not clusterkit's; move it away",
                "unable to open database file": "set CLUSTERKIT_HOME to a folder you may write to",
            }.get(words, "look at the file, or set CLUSTERKIT_HOME to another folder")
            raise StoreError(f"{self._path}: {words}: {hint}") from error

    def _bring_up_to_date(self) -> None:
        if self._revision() == schema.REVISION:
            return
        # Two commands may find an old database at once: one migrates, the other waits for it.
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._revision() != schema.REVISION:
                from clusterkit.store import upgrade

                upgrade.run(self._engine, self._path)
        finally:
            os.close(lock)

    def _revision(self) -> str | None:
        with self._engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return None if found is None else str(found)


class _TransactionRows:
    """What `Progress` needs of the database, inside one transaction."""

    def __init__(self, connection: sa.Connection, experiment: str) -> None:
        self._connection = connection
        self._experiment = experiment

    def journal(self, name: str) -> tuple[int, str | None]:
        table = schema.journals
        query = sa.select(table.c.offset, table.c.node).where(
            table.c.experiment == self._experiment, table.c.name == name
        )
        row = self._connection.execute(query).one_or_none()
        return (0, None) if row is None else (row.offset, row.node)

    def tasks(self, indexes: Sequence[int]) -> list[dict[str, Any]]:
        table = schema.tasks
        found: list[dict[str, Any]] = []
        for start in range(0, len(indexes), 500):  # SQLite bounds the variables of a statement
            query = sa.select(table).where(
                table.c.experiment == self._experiment,
                table.c.index.in_(indexes[start : start + 500]),
            )
            found.extend(dict(row._mapping) for row in self._connection.execute(query))
        return found

    def put(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or replace those with the same key."""
        if not rows:
            return
        target = schema.metadata.tables[table]
        statement = insert(target)
        keys = [column.name for column in target.primary_key]
        if table != "series":
            others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
            statement = statement.on_conflict_do_update(index_elements=keys, set_=others)
        self._connection.execute(statement, list(rows))


def _set_states(
    connection: sa.Connection, experiment: str, states: Mapping[int, tuple[TaskState, str | None]]
) -> None:
    table = schema.tasks
    statement = (
        sa.update(table)
        .where(
            table.c.experiment == experiment,
            table.c.index == sa.bindparam("which"),
            table.c.state != TaskState.COMPLETED,
        )
        .values(state=sa.bindparam("new_state"), reason=sa.bindparam("new_reason"))
    )
    rows = [
        {"which": index, "new_state": state, "new_reason": reason}
        for index, (state, reason) in states.items()
    ]
    connection.execute(statement, rows)


def _configure(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _experiment(row: Any) -> Experiment:
    fields = {name: getattr(row, name) for name in Experiment.__dataclass_fields__}
    fields["created"] = datetime.fromtimestamp(row.created, UTC)
    fields["axes"] = tuple(row.axes)
    return Experiment(**fields)
