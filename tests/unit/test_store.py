"""The store: its schema, its queries, and what it says when it cannot work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
import store_rows as rows
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from clusterkit.errors import StoreError, UnknownExperiment
from clusterkit.records import TaskState
from clusterkit.store import Store, schema

RELEASED = sorted((Path(__file__).parent / "data" / "store").glob("*.sql"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "c.db")


def differences(path: Path) -> list[object]:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, schema.metadata))


def test_the_migrations_make_what_the_tables_say(store: Store, tmp_path: Path) -> None:
    assert differences(tmp_path / "c.db") == []


def test_a_released_schema_is_frozen_for_every_revision() -> None:
    assert RELEASED[-1].stem == schema.REVISION


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_a_database_of_every_release_opens_with_its_contents(
    released: Path, tmp_path: Path
) -> None:
    path = tmp_path / "c.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(released.read_text(encoding="utf-8"))
    connection.close()
    store = Store(path)
    assert differences(path) == []
    (found,) = store.experiments()
    assert (found.id, found.message, found.axes) == ("0a1b2c3d", "why?", ("lr",))
    assert rows.states(store) == [TaskState.COMPLETED, TaskState.FAILED, TaskState.PENDING]
    first = store.tasks("0a1b2c3d")[0]
    assert (first.params, first.result) == ({"lr": 0.0}, {"loss": 0.25})
    assert store.plan("0a1b2c3d")["throttle"] == 3
    assert [values for *_, values in store.series("0a1b2c3d")] == [{"loss": 0.5}, {"loss": 0.25}]
    assert store.submissions("0a1b2c3d")[0].job_id == 17
    assert store.offsets("0a1b2c3d").keys() == {"0.0.0.jsonl"}


def test_opening_twice_migrates_once(store: Store, tmp_path: Path) -> None:
    rows.add(store)
    before = (tmp_path / "c.db").stat().st_ino
    assert [e.id for e in Store(tmp_path / "c.db").experiments()] == ["0a1b2c3d"]
    assert (tmp_path / "c.db").stat().st_ino == before


def test_a_newer_schema_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"newer clusterkit .*schema 9999.*CLUSTERKIT_HOME"):
        Store(tmp_path / "c.db")


def damaged(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be looked at " * 99)


def torn(path: Path) -> None:
    store = Store(path)
    rows.add(store, tasks=500)
    store._engine.dispose()
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged, "file is not a database: it is damaged or not clusterkit's"),
        (torn, "malformed"),
        (a_folder, "unable to open database file"),
    ],
)
def test_what_is_no_database_is_told(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "c.db"
    spoil(path)
    with pytest.raises(StoreError, match=words):
        Store(path).experiments()


def test_a_locked_database_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with pytest.raises(StoreError, match="database is locked: another clusterkit"):
        store.set_cancelled("x", True)
    assert store.experiments() == []  # readers are not locked out (WAL)
    other.close()


def test_a_full_database_is_told(store: Store, tmp_path: Path) -> None:
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="database or disk is full: free some space"):
        rows.add(store, tasks=2000)
    assert store.experiments() == []  # all or nothing
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    rows.add(store, tasks=2000)
    assert len(rows.states(store)) == 2000


def test_an_experiment_is_added_whole_or_not_at_all(store: Store) -> None:
    rows.add(store)
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        rows.add(store)
    assert len(store.tasks("0a1b2c3d")) == 3


def test_removing_takes_everything_with_it(store: Store) -> None:
    rows.add(store)
    store.apply("0a1b2c3d", [rows.news("0.0.0", rows.lines(rows.start(0), rows.log(0, v=1)))])
    store.remove_experiment("0a1b2c3d")
    with store._engine.connect() as connection:
        for table in schema.metadata.sorted_tables:
            count = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            assert count == 0, table.name


def test_finding_an_experiment(store: Store) -> None:
    for identity, name in (("aa11", "old"), ("aa22", "train"), ("bb33", "train")):
        rows.add(store, identity, name=name)
    assert store.experiment(None).id == "bb33"
    assert store.experiment("aa11").id == "aa11"
    assert store.experiment("b").id == "bb33"
    assert store.experiment("train").id == "bb33"  # the newest of that name
    with pytest.raises(UnknownExperiment, match=r"several ids: aa22 .* aa11"):
        store.experiment("aa")
    with pytest.raises(UnknownExperiment, match=r"'trian'; the nearest: bb33 \(train\)"):
        store.experiment("trian")
    with pytest.raises(UnknownExperiment, match="history"):
        store.experiment("")


def test_no_experiment_yet(store: Store) -> None:
    with pytest.raises(UnknownExperiment, match="there is no experiment yet"):
        store.experiment(None)
    with pytest.raises(UnknownExperiment, match="no experiment 'x'"):
        store.experiment("x")


def test_rounds_begin_and_are_dropped(store: Store) -> None:
    rows.add(store)
    store.settle("0a1b2c3d", {1: (TaskState.LOST, "gone")})
    second = rows.submission(round=1, job_name="train-1.0", size=1)
    store.begin_round("0a1b2c3d", [second], [1])
    assert rows.states(store)[1] is TaskState.PENDING
    assert [s.round for s in store.submissions("0a1b2c3d")] == [0, 1]
    store.drop_round("0a1b2c3d", 1, [1], "refused")
    assert [s.round for s in store.submissions("0a1b2c3d")] == [0]
    assert (store.tasks("0a1b2c3d")[1].state, store.tasks("0a1b2c3d")[1].reason) == (
        TaskState.LOST, "refused",
    )  # fmt: skip


def test_settling_never_takes_a_result_away(store: Store) -> None:
    rows.add(store)
    store.apply("0a1b2c3d", [rows.news("0.0.0", rows.lines(rows.start(0), rows.end(0)))])
    store.settle("0a1b2c3d", {0: (TaskState.LOST, "x"), 1: (TaskState.LOST, "x")})
    assert rows.states(store) == [TaskState.COMPLETED, TaskState.LOST, TaskState.PENDING]


def test_counts_and_job_ids(store: Store) -> None:
    rows.add(store)
    assert store.count("0a1b2c3d") == {TaskState.PENDING: 3}
    assert store.counts() == {"0a1b2c3d": {TaskState.PENDING: 3}}
    found = store.set_job_id(store.submissions("0a1b2c3d")[0], 17)
    assert found.job_id == 17
    assert store.submissions("0a1b2c3d")[0].job_id == 17
    assert store.pace("0a1b2c3d") is None


def test_experiments_of_before_there_were_ids_belong_to_the_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(RELEASED[0].read_text(encoding="utf-8"))
    connection.close()
    store = Store(path)
    rows.add(store, "11111111", cluster_id="ab12")
    assert {e.id: e.cluster_id for e in store.experiments()} == {"0a1b2c3d": "", "11111111": "ab12"}
    assert len(store.tasks("0a1b2c3d")) == 3
