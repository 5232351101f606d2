"""The laptop's Trino: its configuration, its command line, and when it is ready."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from local.process import LOOPBACK, Service
from local.trino.download import VERSION, ensure_server, is_whole, server_folder
from local.trino.java import find_java
from runtime.aws import DEFAULT_REGION, EMULATOR_ACCESS_KEY, EMULATOR_SECRET_KEY
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.target import write_atomically

PORT = 8080
USER = "goldlake"
CATALOG = "delta"
HEAP = "1G"
READY_SECONDS = 240
COMMAND = "goldlake local up --with trino"
# Trino refuses to start with fewer than 4096 and asks for 8192; macOS gives 256.
OPEN_FILES = 8192

Say = Callable[[str], None]


@dataclass(frozen=True)
class Installation:
    """What is needed to run Trino: the unpacked server, and a Java home."""

    server: Path
    java_home: Path


def install(say: Say) -> Installation:
    """Return the installation, downloaded when it is not there.

    Raises ConfigurationError without a Java, and as `download.ensure_server` does. Java comes first: it fails at
    once, not after 821 MB.
    """
    java_home = find_java(say)
    return Installation(ensure_server(say), java_home)


def installed() -> Installation:
    """Return the installation that is there. Raises ConfigurationError naming what is missing; downloads nothing."""
    if not is_whole(server_folder()):
        raise ConfigurationError(f"Trino {VERSION} is not in {server_folder().parent}", hint=COMMAND)
    return Installation(server_folder(), find_java(lambda _line: None))


def url(port: int, catalog: str = CATALOG) -> str:
    """Return the URL that `TRINO_URL` and `--trino-url` take."""
    return f"http://{USER}@{LOOPBACK}:{port}/{catalog}"


# --- configuration ---


def configuration(port: int, endpoint_url: str, folder: Path) -> dict[str, str]:
    """Return the files under etc/ by name, for an emulator's endpoint; `folder` is for what Trino keeps."""
    catalogs = {
        "delta": {
            "connector.name": "delta_lake",
            "hive.metastore": "glue",
            **_glue(endpoint_url),
            **_s3(endpoint_url),
            **_DELTA,
        },
        # With a metastore of its own, as a Trino has that does not share the Glue catalogue.
        "delta_file": {
            "connector.name": "delta_lake",
            "hive.metastore": "file",
            "hive.metastore.catalog.dir": "local:///metastore",
            # Tables are on S3, not beside their entries, as this metastore would have it.
            "hive.metastore.disable-location-checks": "true",
            "fs.native-local.enabled": "true",
            "local.location": str(folder),
            **_s3(endpoint_url),
            **_DELTA,
        },
        "iceberg": {
            "connector.name": "iceberg",
            "iceberg.catalog.type": "glue",
            "iceberg.register-table-procedure.enabled": "true",
            **_glue(endpoint_url),
            **_s3(endpoint_url),
        },
        "tpch": {"connector.name": "tpch"},
    }
    return {
        "config.properties": properties(
            {
                "coordinator": "true",
                "node-scheduler.include-coordinator": "true",
                "http-server.http.port": str(port),
                "discovery.uri": f"http://{LOOPBACK}:{port}",
                # Its lines would be as many as the requests of every client that polls.
                "http-server.log.enabled": "false",
            }
        ),
        "node.properties": properties(
            {
                "node.environment": "goldlake",
                # Without them it listens on every address.
                "node.internal-address": LOOPBACK,
                "node.bind-ip": LOOPBACK,
            }
        ),
        "jvm.config": "".join(f"{option}\n" for option in _JVM),
        **{f"catalog/{name}.properties": properties(content) for name, content in catalogs.items()},
    }


_JVM = (
    f"-Xmx{HEAP}",
    # Java takes another collector on a small machine.
    "-XX:+UseG1GC",
    # The second compiler takes more of a small machine than short queries gain by it: measured on 2 cores, it starts in
    # two thirds of the time without, and the first queries take half as long.
    "-XX:TieredStopAtLevel=1",
    # A Trino without memory answers no more; one that is gone is started anew.
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ReservedCodeCacheSize=256M",
    # It would write to the machine's /tmp.
    "-XX:-UsePerfData",
    "-Djdk.attach.allowAttachSelf=true",
    "-Dfile.encoding=UTF-8",
)

_DELTA = {
    # Off by default; without it there is no way to register a table.
    "delta.register-table-procedure.enabled": "true",
    # Otherwise other engines see one dummy column.
    "delta.metastore.store-table-metadata": "true",
}


def _glue(endpoint_url: str) -> dict[str, str]:
    return {
        "hive.metastore.glue.endpoint-url": endpoint_url,
        "hive.metastore.glue.region": DEFAULT_REGION,
        "hive.metastore.glue.aws-access-key": EMULATOR_ACCESS_KEY,
        "hive.metastore.glue.aws-secret-key": EMULATOR_SECRET_KEY,
    }


def _s3(endpoint_url: str) -> dict[str, str]:
    return {
        "fs.native-s3.enabled": "true",
        "s3.endpoint": endpoint_url,
        "s3.region": DEFAULT_REGION,
        "s3.path-style-access": "true",
        "s3.aws-access-key": EMULATOR_ACCESS_KEY,
        "s3.aws-secret-key": EMULATOR_SECRET_KEY,
    }


def properties(values: Mapping[str, str]) -> str:
    r"""Return a Java properties file: backslashes doubled, what is not ASCII as \uXXXX."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in values.items())


def _escaped(value: str) -> str:
    utf16 = value.replace("\\", "\\\\").encode("utf-16-be")
    units = [int.from_bytes(utf16[at : at + 2], "big") for at in range(0, len(utf16), 2)]
    return "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in units)


def prepare(found: Installation, folder: Path, port: int, endpoint_url: str) -> list[str]:
    """Write the configuration under `folder` and return the command that runs Trino in the foreground."""
    etc, temporary = folder / "etc", folder / "tmp"
    # Of one that was killed: the launcher would take a zombie, or another process of that number, for it.
    (folder / "data" / "var" / "run" / "launcher.pid").unlink(missing_ok=True)
    shutil.rmtree(etc, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)
    for made in (etc / "catalog", folder / "data", folder / "metastore", temporary):
        made.mkdir(parents=True, exist_ok=True)
    for name, text in configuration(port, endpoint_url, folder).items():
        write_atomically(etc / name, text)
    return [
        str(found.server / "bin" / "launcher"),
        *("-etc-dir", str(etc)),
        *("-data-dir", str(folder / "data")),
        *("-jvm-dir", str(found.java_home)),
        *("-D", f"java.io.tmpdir={temporary}"),
        "run",
    ]


# --- running ---


def says_started(port: int) -> bool:
    """Return whether Trino says of itself that it has started."""
    info = f"http://{LOOPBACK}:{port}/v1/info"
    try:
        with urllib.request.urlopen(info, timeout=2) as answer:
            return json.load(answer).get("starting") is False
    except (OSError, ValueError, AttributeError):
        return False


def answers_query(port: int) -> bool:
    """Return whether a query is answered: `/v1/info` says ready some seconds before it is."""
    # Until then a query would only be one more line in the log.
    if not says_started(port):
        return False
    import requests
    import trino

    with requests.Session() as session:
        # No proxy of the environment for loopback.
        session.trust_env = False
        try:
            connection = trino.dbapi.connect(
                host=LOOPBACK, port=port, user=USER, http_session=session, max_attempts=1, request_timeout=15
            )
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.execute("SELECT count(*) FROM tpch.tiny.region")
                return bool(cursor.fetchall() == [[5]])
        except (trino.exceptions.Error, trino.exceptions.TrinoConnectionError, requests.RequestException, ValueError):
            # ValueError: something else than Trino answered.
            return False


def wait_until_ready(
    service: Service,
    port: int,
    say: Say,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until a started Trino answers a query, saying so every five seconds.

    Raises FailedError when it ends meanwhile; UnreachableError, after stopping it, when it takes too long.
    """
    started = said = clock()
    while not service.healthy(port):
        now = clock()
        record = service.record()
        if record is None or record.process() is None:
            service.record_file.unlink(missing_ok=True)
            raise FailedError(f"trino ended while it started: {service.last_words()}", hint=f"see {service.log_file}")
        if now - started > READY_SECONDS:
            service.stop(say)
            raise UnreachableError(f"trino answered no query within {READY_SECONDS} s", hint=f"see {service.log_file}")
        if now - said >= 5:
            said = now
            say(f"trino: starting, {now - started:.0f} s")
        pause(0.25)


def allow_open_files() -> None:
    """Let this process, and so the Trino that it starts, open as many files as Trino asks for, if that may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
