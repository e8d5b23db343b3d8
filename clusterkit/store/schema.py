"""The tables. A change here needs a migration in migrations/versions (a test compares the two)."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

#: The revision that these tables stand for; `alembic_version` of an up-to-date database.
REVISION = "0002"

metadata = MetaData()


def _experiment() -> Column[str]:
    return Column("experiment", ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)


experiments = Table(
    "experiments",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("message", Text, nullable=False),
    Column("cluster", String, nullable=False),
    Column("created", Float, nullable=False, index=True),  # seconds since 1970
    Column("script", String, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("root", String, nullable=False),
    Column("lib", String, nullable=False),
    Column("axes", JSON, nullable=False),
    Column("grid", Text, nullable=False),
    Column("snapshot", String, nullable=False),
    Column("commit", String),
    Column("branch", String),
    Column("diff", Text),
    Column("environment", JSON, nullable=False),
    Column("plan", JSON, nullable=False),  # what a rerun needs: see sweep.submit.Plan
    Column("cancelled", Boolean, nullable=False, default=False),
    # Of the very cluster, "" where it has none (`local`, or made before there were ids).
    Column("cluster_id", String, nullable=False, server_default=""),
)

submissions = Table(
    "submissions",
    metadata,
    _experiment(),
    Column("round", Integer, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("job_name", String, nullable=False, unique=True),
    Column("job_id", BigInteger),  # NULL: written before sbatch, not (known to be) submitted
    Column("offset", Integer, nullable=False),
    Column("size", Integer, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    _experiment(),
    Column("index", Integer, primary_key=True),
    Column("point", String, nullable=False),
    Column("params", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("seconds", Float),
    Column("peak_memory", BigInteger),  # bytes
    Column("node", String),
    Column("attempt", Integer, nullable=False, default=0),
    Column("result", JSON),
    Column("slot", String),
    Column("log_start", BigInteger),
    Column("log_end", BigInteger),
    Index("tasks_by_state", "experiment", "state"),
)

attempts = Table(
    "attempts",
    metadata,
    _experiment(),
    Column("task", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("slot", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("seconds", Float),
    Column("peak_memory", BigInteger),
    Column("node", String),
    Column("started", Float),
    Column("ended", Float),
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("experiment", ForeignKey("experiments.id", ondelete="CASCADE"), nullable=False),
    Column("task", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("time", Float, nullable=False),
    Column("step", Float),
    Column("values", JSON, nullable=False),
    Index("series_by_task", "experiment", "task"),
)

journals = Table(
    "journals",
    metadata,
    _experiment(),
    Column("name", String, primary_key=True),
    Column("offset", BigInteger, nullable=False),  # bytes harvested
    Column("node", String),
)
