"""The dbt runner runs from its layers alone, as in Lambda: no process locks, and only /tmp can be written."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lambdas import shipped_parse
from lambdas.layers import FUNCTIONS, PROJECT_LAYER, Build
from lambdas.layers.build import _fill
from lambdas.layers.bytecode import compile_modules, interpreter
from lambdas.layers.catalogue import LOCKED
from lambdas.layers.native import faults_in
from lambdas.layers.project import fill_project
from lambdas.layers.rehearse import Stage, rehearse, set_writable, unpack
from runtime.aws import Connection
from tests.local.dbt_support import MARTS
from tests.local.layers_support import Place, built_layers, fresh, running_place, with_project
from tests.local.support import REPOSITORY

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


@pytest.fixture(scope="module")
def place(aws: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A local Redshift with silver data, and the variables that the program gives the function."""
    with running_place(aws, tmp_path_factory.mktemp("redshift")) as place:
        yield place


def write_project(folder: Path, **changed: str) -> Path:
    for name, text in {**PROJECT, **changed}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The layers with this repository's project."""
    made = unpack(built_layers(tmp_path_factory.mktemp("layers") / "out"), tmp_path_factory.mktemp("lambda"))
    yield made
    set_writable(made.root, writable=True)


@pytest.fixture(scope="module")
def shop(gold: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The layers with a project of one's own."""
    folder = tmp_path_factory.mktemp("shop")
    made = built_layers(folder / "out", write_project(folder / "shop"))[PROJECT_LAYER]
    yield with_project(gold, made, folder)
    set_writable(folder / PROJECT_LAYER, writable=True)


def codes_of(ended: dict[str, Any]) -> list[int]:
    assert ended["answers"], ended["stderr"]
    assert (ended["writable"], ended["foreign"]) == ([], [])
    return [found["answer"]["statusCode"] for found in ended["answers"]]


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {node["unique_id"]: node["status"] for node in found["answer"]["results"]}


# dbt's events: no earlier parse can be used; an earlier parse is used; and nothing has changed since.
NOT_USED, USED, UNCHANGED = "I024", "I040", "I017"


# --- the gold project ---

# The seed by itself, with all that dbt needs to parse, connect and load.
CALENDAR: dict[str, Any] = {"command": "seed"}


@pytest.fixture(scope="module")
def gold_runs(gold: Stage, place: Place) -> dict[str, Any]:
    """How three builds in one process ended: everything, everything again, the calendar alone."""
    return rehearse(fresh(gold), [{"command": "build"}, {"command": "build"}, CALENDAR], place.environment, hear=True)


def test_the_whole_gold_project_is_built_twice_from_the_layers_alone(
    gold: Stage, place: Place, gold_runs: dict[str, Any]
) -> None:
    assert codes_of(gold_runs) == [0, 0, 0], [found["answer"]["message"] for found in gold_runs["answers"]]
    for found in gold_runs["answers"][:2]:
        answer = found["answer"]
        # All nodes of the parse that lies in the layer, and as dbt counts them.
        assert answer["totals"]["ok"] == answer["totals"]["nodes"] == len(statuses(found)) + answer["results_left_out"]
    assert {name for name, rows in place.rows(MARTS).items() if rows} == set(MARTS)
    postings = "select count(*), count(distinct job_posting_id) from gold.fact_job_posting"
    ((rows, ids),) = place.query(postings)
    ((wanted,),) = place.query("select count(distinct job_posting_id) from silver_linkedin.job_postings")
    assert rows == ids == wanted > 0


def test_the_gold_projects_parse_is_taken_and_memory_stays_within_the_functions(gold_runs: dict[str, Any]) -> None:
    first = gold_runs["answers"][0]["codes"]
    assert NOT_USED not in first
    assert {USED, UNCHANGED} <= set(first)
    assert 0 < gold_runs["peak_bytes"] < 512 * 2**20


# Each is in the tree after pruning; what the function says without it.
NEEDED = {
    "networkx": "No module named 'networkx'",
    "agate": "No module named 'agate'",
    "babel/locale-data": "locale",
    "dbt/include/redshift": "'redshift' from 'dbt.include'",
    "psycopg2": "No module named 'psycopg2'",
    "redshift_connector": "No module named 'redshift_connector'",
}


@pytest.mark.parametrize("needed", NEEDED)
def test_a_layer_without_something_that_is_needed_fails(
    gold: Stage, place: Place, gold_runs: dict[str, Any], needed: str
) -> None:
    """What passes with the whole layer, the last of the gold project's runs, fails and says for want of what."""
    assert gold_runs["answers"][-1]["answer"]["outcome"] == "done"
    with without(gold.path[1] / needed):
        ended = rehearse(fresh(gold), [CALENDAR], place.environment)
    answers = [found["answer"] for found in ended["answers"]]
    assert [answer["statusCode"] for answer in answers] != [0]
    assert NEEDED[needed] in json.dumps(answers) + ended["stderr"]


@contextlib.contextmanager
def without(path: Path) -> Iterator[None]:
    """Hide a file or folder of a tree that cannot be written, within the block."""
    aside = path.with_name(f"{path.name}.aside")
    mode = path.parent.stat().st_mode
    path.parent.chmod(0o755)
    path.rename(aside)
    path.parent.chmod(mode)
    try:
        yield
    finally:
        path.parent.chmod(0o755)
        aside.rename(path)
        path.parent.chmod(mode)


# --- a project of one's own ---


@pytest.fixture(scope="module")
def shop_runs(shop: Stage, place: Place) -> dict[str, Any]:
    """How four commands in one process ended."""
    changed = {"command": "build", "vars": {"smallest": 5}, "full_refresh": True}
    events: list[dict[str, Any]] = [{"command": "debug"}, {"command": "build"}, {"command": "build"}, changed]
    return rehearse(fresh(shop), events, place.environment, hear=True)


def test_a_project_of_ones_own_is_built_from_the_layers_alone(shop_runs: dict[str, Any], place: Place) -> None:
    assert codes_of(shop_runs) == [0, 0, 0, 0], [found["answer"]["message"] for found in shop_runs["answers"]]
    found = statuses(shop_runs["answers"][1])
    assert {name.split(".")[2] for name in found} >= {"orders", "large_orders", "customers", "no_debts"}
    assert set(found.values()) == {"success", "pass"}
    # Of the last, whose variable lets in what is smaller.
    assert place.query("select customer, cents from gold.customers order by 1") == [["ann", 3250], ["bob", 800]]


def test_debug_finds_profile_adapter_and_warehouse_from_the_layers_alone(shop_runs: dict[str, Any]) -> None:
    assert "All checks passed!" in shop_runs["answers"][0]["answer"]["stdout"]


def test_the_projects_files_are_packed_without_secrets_and_leftovers(shop: Stage) -> None:
    packed = {path.relative_to(shop.path[2]).as_posix() for path in shop.path[2].rglob("*") if path.is_file()}
    kept = {f"dbt_gold/{name}" for name in PROJECT if name not in (".env", "target/manifest.json")}
    assert packed == {*kept, "dbt_gold/profiles.yml", f"dbt_gold/{shipped_parse.FILE}"}


def test_dbt_takes_the_parse_that_the_layer_brings_for_a_warehouse_the_builder_never_knew(
    shop_runs: dict[str, Any],
) -> None:
    codes = shop_runs["answers"][1]["codes"]
    assert NOT_USED not in codes
    assert {USED, UNCHANGED} <= set(codes)


def test_a_command_with_variables_parses_anew(shop_runs: dict[str, Any]) -> None:
    assert NOT_USED in shop_runs["answers"][3]["codes"]


def test_without_the_layers_parse_dbt_parses_and_says_so(shop: Stage, place: Place) -> None:
    """What the tests above would see if the parse were not used."""
    with without(shop.path[2] / "dbt_gold" / shipped_parse.FILE):
        ended = rehearse(fresh(shop), [{"command": "compile"}], place.environment, hear=True)
    assert codes_of(ended) == [0]
    assert NOT_USED in ended["answers"][0]["codes"]


# --- builds ---


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


def other_versions() -> list[str]:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [version for version in ("3.11", "3.12", "3.13") if version != own]


ONE_OF_MANY = pytest.mark.skipif(
    os.environ.get("GOLDLAKE_TARGETS") != "all",
    reason="one target of many; all of them: GOLDLAKE_TARGETS=all make test",
)


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=ONE_OF_MANY) if v == "3.12" else v for v in other_versions()]
)
def test_the_layer_for_another_python_runs_there(gold: Stage, place: Place, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here: `uv python install {version}` brings one")
    build = Build(REPOSITORY, tmp_path, python_version=version)
    layer, code = tmp_path / "layer" / "python", tmp_path / FUNCTIONS
    for name, content in (("dbt_redshift", layer), (FUNCTIONS, code)):
        content.mkdir(parents=True)
        _fill(build, name, content)
        assert faults_in(content, build) == []
    assert compile_modules(python, layer).startswith(f"{version}.")
    (tmp_path / "tmp").mkdir()
    stage = Stage(tmp_path, (code, layer, *gold.path[2:]), tmp_path / "tmp")
    set_writable(tmp_path / "layer", writable=False)
    set_writable(code, writable=False)
    try:
        events: list[dict[str, Any]] = [{"command": "debug"}, CALENDAR]
        ended = rehearse(stage, events, place.environment, executable=str(python), hear=True)
    finally:
        set_writable(tmp_path / "layer", writable=True)
        set_writable(code, writable=True)
    assert codes_of(ended) == [0, 0], ended["answers"][-1]["answer"]["message"]
    assert NOT_USED not in ended["answers"][1]["codes"]
    # Nothing has compiled anything anew: the bytecode of the layer was taken.
    assert not list((tmp_path / "tmp").rglob("*.pyc"))


@pytest.mark.parametrize(
    ("platform", "version", "faulty"),
    [
        # delta-rs has no file for an older glibc there.
        ("arm64", "3.11", {"delta"}),
        ("x86_64", "3.13", set()),
        *(
            pytest.param(platform, version, set(), marks=ONE_OF_MANY)
            for platform, version in (("x86_64", "3.11"), ("arm64", "3.12"), ("arm64", "3.13"))
        ),
    ],
)
def test_packages_for_any_target_are_installed_here_and_are_for_that_target(
    tmp_path: Path, platform: str, version: str, faulty: set[str]
) -> None:
    build = Build(REPOSITORY, tmp_path, platform, version)
    found = {}
    for name in LOCKED:
        content = tmp_path / name
        content.mkdir()
        _fill(build, name, content)
        assert any(path.name.endswith(".so") for path in content.rglob("*"))
        found[name] = faults_in(content, build)
        shutil.rmtree(content)
    assert {name for name, faults in found.items() if faults} == faulty
    assert all("needs glibc 2.28" in fault for faults in found.values() for fault in faults)


def test_a_project_that_reads_the_connection_is_packed_without_a_parse(tmp_path: Path) -> None:
    from lambdas.layers.project import ship_parse

    reads = "{{ config(alias='on_' ~ target.user) }} select 1 as one"
    write_project(tmp_path / "shop", **{"models/reads.sql": reads})
    fill_project(tmp_path / "shop", tmp_path / "python")
    reason = ship_parse(tmp_path / "python")
    assert reason is not None
    assert "reads the connection" in reason
    assert not (tmp_path / "python" / "dbt_gold" / shipped_parse.FILE).exists()
