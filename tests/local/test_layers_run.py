"""The dbt runner runs from its layers alone, as in Lambda: no process locks, and only /tmp can be written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from lambdas import shipped_parse
from lambdas.layers import Artifact, Build, build_all
from lambdas.layers.bytecode import interpreter
from lambdas.layers.project import fill_project
from lambdas.layers.rehearse import Stage, rehearse, set_writable, unpack
from local.process import exclusive, free_port
from runtime.aws import Connection
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Xy7localonly"
LOGIN = "layers-test/login"
# What a dbt user brings: a seed, models of each kind, tests, a macro, a variable; no profile and no schema of ours.
PROJECT = {
    "dbt_project.yml": "name: shop\nversion: 1.0.0\nconfig-version: 2\nprofile: shop\nflags:\n"
    "  send_anonymous_usage_stats: false\n  version_check: false\nvars:\n  smallest: 10\n"
    "seeds:\n  shop:\n    +column_types: {placed_at: timestamp}\n",
    "seeds/orders.csv": "order_id,customer,amount,placed_at\n1,ann,12.50,2026-01-01\n2,bob,8.00,2026-01-02\n"
    "3,ann,20.00,2026-01-03\n",
    "macros/cents.sql": "{% macro cents(column) %}cast({{ column }} * 100 as bigint){% endmacro %}",
    "models/large_orders.sql": "select order_id, customer, {{ cents('amount') }} as cents from {{ ref('orders') }}\n"
    "where amount >= {{ var('smallest') }}",
    "models/customers.sql": "{{ config(materialized='incremental', unique_key='customer') }}\n"
    "select customer, sum(cents) as cents from {{ ref('large_orders') }} group by customer",
    "models/models.yml": "models:\n  - name: customers\n    columns:\n      - name: customer\n"
    "        data_tests: [unique, not_null]\n",
    "tests/no_debts.sql": "select * from {{ ref('customers') }} where cents < 0",
    "target/manifest.json": "{}",
    ".env": "PASSWORD=hunter2",
}


@dataclass(frozen=True)
class Place:
    """The handler's environment, and a warehouse behind it."""

    environment: Mapping[str, str]
    port: int

    def query(self, statement: str) -> list[list[Any]]:
        with contextlib.closing(
            redshift_connector.connect(
                host="127.0.0.1", port=self.port, database="analytics", user="admin", password=PASSWORD, ssl=False
            )
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []


@pytest.fixture(scope="module")
def place(aws: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A local Redshift, its login in the emulator, and the variables that the program gives the function."""
    aws.client("secretsmanager").create_secret(
        Name=LOGIN, SecretString=json.dumps({"username": "admin", "password": PASSWORD})
    )
    work = tmp_path_factory.mktemp("redshift")
    port, log = free_port(), work / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(work / "data"), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: "ready on" in log.read_text() or process.poll() is not None, "local Redshift", 60)
        yield Place(
            {
                "AWS_ENDPOINT_URL": str(aws.endpoint_url),
                "AWS_REGION": "us-east-1",
                "REDSHIFT_HOST": "127.0.0.1",
                "REDSHIFT_PORT": str(port),
                "REDSHIFT_SSL": "false",
                "REDSHIFT_SECRET": LOGIN,
            },
            port,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def write_project(folder: Path, **changed: str) -> Path:
    for name, text in {**PROJECT, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The layers with a project of one's own; the packages' layers are those of `make run` where they are built."""
    folder = tmp_path_factory.mktemp("layers")
    with exclusive(REPOSITORY / ".goldlake"):
        build_all(Build(REPOSITORY, REPOSITORY / ".goldlake" / "build"))
        shutil.copytree(REPOSITORY / ".goldlake" / "build", folder / "out")
    project = write_project(folder / "shop")
    return {artifact.name: artifact for artifact in build_all(Build(REPOSITORY, folder / "out", dbt_project=project))}


@pytest.fixture(scope="module")
def stage(artifacts: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = unpack(artifacts, tmp_path_factory.mktemp("lambda"))
    yield made
    set_writable(made.root, writable=True)


def fresh(stage: Stage) -> Stage:
    """Empty what stands for /tmp: a new execution environment has nothing there."""
    shutil.rmtree(stage.temporary)
    stage.temporary.mkdir()
    return stage


# dbt's events: no earlier parse can be used; an earlier parse is used; and nothing has changed since.
NOT_USED, USED, UNCHANGED = "I024", "I040", "I017"


def test_a_project_of_ones_own_is_built_twice_from_the_layers_alone(stage: Stage, place: Place) -> None:
    events = [{"command": "build"}, {"command": "build"}]
    ended = rehearse(fresh(stage), events, place.environment)
    assert [found["answer"]["statusCode"] for found in ended["answers"]] == [0, 0], ended
    assert (ended["writable"], ended["foreign"]) == ([], [])
    statuses = {node["unique_id"]: node["status"] for node in ended["answers"][0]["answer"]["results"]}
    assert {name.split(".")[2] for name in statuses} >= {"orders", "large_orders", "customers", "no_debts"}
    assert set(statuses.values()) == {"success", "pass"}
    assert place.query("select customer, cents from gold.customers order by 1") == [["ann", 3250]]


def test_debug_finds_profile_adapter_and_warehouse_from_the_layers_alone(stage: Stage, place: Place) -> None:
    ended = rehearse(fresh(stage), [{"command": "debug"}], place.environment)
    assert ended["answers"][0]["answer"]["statusCode"] == 0, ended
    assert "All checks passed!" in ended["answers"][0]["answer"]["stdout"]


def test_the_projects_files_are_packed_without_secrets_and_leftovers(stage: Stage) -> None:
    packed = {path.relative_to(stage.path[2]).as_posix() for path in stage.path[2].rglob("*") if path.is_file()}
    kept = {f"dbt_gold/{name}" for name in PROJECT if name not in (".env", "target/manifest.json")}
    assert packed == {*kept, "dbt_gold/profiles.yml", f"dbt_gold/{shipped_parse.FILE}"}


def test_dbt_takes_the_parse_that_the_layer_brings_for_a_warehouse_the_builder_never_knew(
    stage: Stage, place: Place
) -> None:
    ended = rehearse(fresh(stage), [{"command": "compile"}], place.environment, hear=True)
    assert ended["answers"][0]["answer"]["statusCode"] == 0, ended
    assert NOT_USED not in ended["codes"]
    assert {USED, UNCHANGED} <= set(ended["codes"])


def test_without_the_layers_parse_dbt_parses_and_says_so(stage: Stage, place: Place) -> None:
    """What the test above would see if the parse were not used."""
    folder = stage.path[2] / "dbt_gold"
    folder.chmod(0o755)
    (folder / shipped_parse.FILE).rename(folder / "kept")
    try:
        ended = rehearse(fresh(stage), [{"command": "compile"}], place.environment, hear=True)
    finally:
        (folder / "kept").rename(folder / shipped_parse.FILE)
        folder.chmod(0o555)
    assert ended["answers"][0]["answer"]["statusCode"] == 0, ended
    assert NOT_USED in ended["codes"]


def test_a_command_with_variables_parses_anew_and_uses_them(stage: Stage, place: Place) -> None:
    event = {"command": "build", "vars": {"smallest": 5}, "full_refresh": True}
    ended = rehearse(fresh(stage), [event], place.environment, hear=True)
    assert ended["answers"][0]["answer"]["statusCode"] == 0, ended
    assert NOT_USED in ended["codes"]
    assert place.query("select customer, cents from gold.customers order by 1") == [["ann", 3250], ["bob", 800]]


NEEDED = ("networkx", "agate", "babel/locale-data", "dbt/include/redshift", "psycopg2", "redshift_connector")


@pytest.mark.parametrize("needed", NEEDED)
def test_a_layer_without_something_that_is_needed_fails(
    stage: Stage, place: Place, tmp_path: Path, needed: str
) -> None:
    layer = stage.path[1]
    root = tmp_path / "opt"
    # Links: a file's content is not touched here.
    shutil.copytree(stage.root, root, copy_function=os.link, symlinks=True)
    set_writable(root / "dbt_redshift", writable=True)
    shutil.rmtree(root / layer.relative_to(stage.root) / needed)
    (tmp_path / "tmp").mkdir()
    less = Stage(root, tuple(root / folder.relative_to(stage.root) for folder in stage.path), tmp_path / "tmp")
    try:
        ended = rehearse(less, [{"command": "build"}], place.environment)
    finally:
        set_writable(stage.root, writable=False)
        for folder, _folders, _files in os.walk(root):
            Path(folder).chmod(0o755)
    assert [found["answer"]["statusCode"] for found in ended["answers"]] != [0]


def test_two_builds_on_other_days_under_other_settings_are_the_same_bytes(tmp_path: Path) -> None:
    """The project's layer with its parse, and the smallest layer of packages with bytecode."""
    program = (
        "import os, sys\nos.umask(int(sys.argv[3], 8))\nfrom pathlib import Path\n"
        "from lambdas.layers.build import _build\nfrom lambdas.layers import Build\n"
        "build = Build(Path(sys.argv[1]), Path(sys.argv[2]), dbt_project=Path(sys.argv[1]))\n"
        "build.out.mkdir(parents=True)\n"
        "print([(a.sha256, a.content) for a in (_build(build, name, print) for name in ('dbt_project', 'trino'))])\n"
    )
    settings = (
        ("one", "022", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        ("another/one", "077", {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
    )
    said = []
    for number, (folder, umask, variables) in enumerate(settings):
        project = write_project(tmp_path / folder)
        for path in project.rglob("*"):
            os.utime(path, (1_600_000_000 + number * 86_400,) * 2)
        done = subprocess.run(
            [sys.executable, "-c", program, str(project), str(tmp_path / f"out{number}"), umask],
            cwd=REPOSITORY,
            env=os.environ | variables | {"TMPDIR": str(project.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.strip().splitlines()[-1])
    assert said[0] == said[1]
    bills = [
        {path.name: path.read_bytes() for path in (tmp_path / f"out{number}").iterdir() if path.suffix != ".json"}
        for number in range(2)
    ]
    assert len(bills[0]) == 4
    assert bills[0] == bills[1]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_an_interpreter_that_is_found_has_the_version_that_was_asked_for(version: str) -> None:
    asked = [sys.executable, "-m", "uv", "python", "find", "--no-project", "--no-python-downloads", version]
    there = subprocess.run(asked, capture_output=True, check=False).returncode == 0
    found = interpreter(version)
    assert (found is not None) == (there or version == f"{sys.version_info.major}.{sys.version_info.minor}")
    if found is not None:
        said = subprocess.run([str(found), "--version"], capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"Python {version}.")


def test_a_project_that_reads_the_connection_is_packed_without_a_parse(tmp_path: Path) -> None:
    from lambdas.layers.project import ship_parse

    reads = "{{ config(alias='on_' ~ target.user) }} select 1 as one"
    write_project(tmp_path / "shop", **{"models/reads.sql": reads})
    fill_project(tmp_path / "shop", tmp_path / "python")
    reason = ship_parse(tmp_path / "python")
    assert reason is not None
    assert "reads the connection" in reason
    assert not (tmp_path / "python" / "dbt_gold" / shipped_parse.FILE).exists()
