"""A small dbt project, as a team would bring it, on the local Redshift: over TLS, four threads, again and again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redshift_connector

from local.process import free_port
from local.redshift.tls import Files
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Zw4 of dbt alone"
MODELS = {f"leaf_{number}": "select * from {{ ref('facts') }}" for number in range(8)}
PROJECT = {
    "dbt_project.yml": """
name: small
version: "1.0"
profile: small
models:
  small:
    +materialized: table
    +dist: even
    +grants: {select: [reader]}
""",
    "profiles.yml": """
small:
  target: local
  outputs:
    local: {type: redshift, host: localhost, port: "{{ env_var('PORT') | int }}", user: admin, dbname: analytics,
            password: "{{ env_var('DBT_ENV_SECRET_REDSHIFT_PASSWORD') }}", schema: small, threads: 4, sslmode: require,
            connect_timeout: 30}
""",
    "seeds/seen.csv": "id,name,at\n1,alpha,2026-11-01 00:00:00\n2,bravo,2026-11-01 00:00:00\n",
    "models/facts.sql": "{{ config(materialized='incremental', unique_key='id', sort='at') }}"
    " select * from {{ ref('seen') }}"
    " {% if is_incremental() %} where at > (select max(at) from {{ this }}) {% endif %}",
    "models/shown.sql": "{{ config(materialized='view', bind=False) }} select id from {{ ref('facts') }}",
    **{f"models/{name}.sql": text for name, text in MODELS.items()},
    "models/models.yml": """
models:
  - name: facts
    description: Said in the catalogue.
    columns:
      - name: id
        data_tests: [unique, not_null]
""",
    "snapshots/history.sql": """
{% snapshot history %}
{{ config(target_schema='small', unique_key='id', strategy='check', check_cols=['name']) }}
select * from {{ ref('seen') }}
{% endsnapshot %}
""",
}


@dataclass
class Project:
    """The project in a folder, and the server that it is built on."""

    folder: Path
    port: int
    authority: str

    def dbt(self, *arguments: str) -> dict[str, str]:
        """Run dbt as a command; return each node's status."""
        environment = os.environ | {"PORT": str(self.port), "SSL_CERT_FILE": self.authority}
        environment |= {"DBT_ENV_SECRET_REDSHIFT_PASSWORD": PASSWORD}
        environment |= {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_PROFILES_DIR": str(self.folder)}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        results = json.loads((self.folder / "target" / "run_results.json").read_text())["results"]
        return {item["unique_id"].split(".", 1)[1]: item["status"] for item in results}

    def query(self, text: str) -> list[list[Any]]:
        login = {"user": "admin", "password": PASSWORD, "database": "analytics"}
        with contextlib.closing(
            redshift_connector.connect(host="127.0.0.1", port=self.port, ssl=False, **login)
        ) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(text)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project, and a local Redshift for it."""
    home = tmp_path_factory.mktemp("small")
    for name, text in PROJECT.items():
        file = home / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    data, log, port = home / "warehouse", home / "log", free_port()
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(data), "--port", str(port)],
            cwd=REPOSITORY,
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
            stdout=output,
            stderr=output,
        )
    wait_for(lambda: "ready on" in log.read_text() or server.poll() is not None, "ready line")
    found = Project(home / "project", port, str(Files.of(data).authority))
    found.query("create user reader password disable")
    yield found
    server.send_signal(signal.SIGTERM)
    server.wait(30)


def test_a_project_is_built_again_and_again_documented_and_rebuilt(project: Project) -> None:
    first = project.dbt("build")
    assert len(first) == 14
    assert set(first.values()) == {"success", "pass"}
    project.query("insert into small.seen values (3, 'c', '2026-11-02')")
    # A seed would be loaded anew, without the row that was added by hand.
    second = project.dbt("build", "--exclude", "resource_type:seed")
    assert set(second.values()) == {"success", "pass"}
    assert project.query("select id from small.facts order by 1") == [[1], [2], [3]]
    assert project.query("select count(*) from small.leaf_7") == [[3]]

    project.query("update small.seen set name = 'other' where id = 1")
    assert project.dbt("snapshot") == {"small.history": "success"}
    assert project.query("select id, dbt_valid_to is null from small.history where id = 1 order by 2") == [
        [1, False],
        [1, True],
    ]

    project.dbt("docs", "generate")
    catalog = json.loads((project.folder / "target" / "catalog.json").read_text())["nodes"]
    facts = catalog["model.small.facts"]
    assert facts["metadata"]["type"] in ("BASE TABLE", "TABLE")
    assert list(facts["columns"]) == ["id", "name", "at"]
    assert catalog["model.small.shown"]["metadata"]["type"] == "LATE BINDING VIEW"

    assert set(project.dbt("run", "--full-refresh").values()) == {"success"}
    assert project.query("select name from small.facts where id = 1") == [["other"]]
    assert project.query("select has_table_privilege('reader', 'small.leaf_3', 'select')") == [[True]]
    assert project.query("select has_table_privilege('reader', 'small.leaf_3', 'insert')") == [[False]]
