"""What Lambda runs: reproducible zips of layers and functions, without a process or the network."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdas.layers import (
    FUNCTIONS,
    LAYER_PACKAGES,
    MAX_UNZIPPED_BYTES,
    PROJECT_LAYER,
    Artifact,
    Build,
    build_all,
    entries,
    write_zip,
)
from lambdas.layers import lock as locks
from lambdas.layers.catalogue import LOCKED
from runtime.errors import ConfigurationError, FailedError

FILES = {
    "python/dbt/__init__.py": b"",
    "python/dbt/main.py": b"print('dbt')\n" * 100,
    "python/dbt/lib.so": bytes(range(256)) * 50,
    "python/dbt-1.0.dist-info/METADATA": b"Name: dbt",
    "python/é.txt": "ü".encode(),
}
LEFT_OUT = (
    "python/bin/dbt",
    "python/.lock",
    "python/dbt/__pycache__/main.cpython-311.pyc",
    "python/dbt/old.pyc",
    "python/dbt-1.0.dist-info/RECORD",
    "python/dbt-1.0.dist-info/INSTALLER",
    "python/dbt-1.0.dist-info/REQUESTED",
    "python/dbt-1.0.dist-info/direct_url.json",
    "python/dbt-1.0.dist-info/uv_cache.json",
)


def fill(root: Path, files: dict[str, bytes], seed: int = 0) -> Path:
    """Write files in an order, with times and modes, that depend on the seed."""
    chance = random.Random(seed)  # noqa: S311 - for order, not for secrecy
    for name in chance.sample(sorted(files), len(files)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        path.chmod(0o600 if seed % 2 else 0o664)
        moment = chance.randrange(10**9, 2 * 10**9)
        os.utime(path, (moment, moment))
    return root


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


# --- zips ---


def test_two_folders_that_differ_in_times_modes_and_order_give_the_same_bytes(tmp_path: Path) -> None:
    digests = [write_zip(fill(tmp_path / str(seed), FILES, seed), tmp_path / f"{seed}.zip") for seed in range(4)]
    assert len(set(digests)) == 1
    assert len({(tmp_path / f"{seed}.zip").read_bytes() for seed in range(4)}) == 1
    assert len({(tmp_path / str(seed) / "python/dbt/main.py").stat().st_mtime for seed in range(4)}) == 4


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(sorted(FILES)), st.binary(max_size=200), min_size=1), st.integers(0, 1000))
def test_a_zip_holds_each_file_with_its_content(files: dict[str, bytes], seed: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_zip(fill(folder / "root", files, seed), folder / "a.zip")
        with zipfile.ZipFile(folder / "a.zip") as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == files
            assert opened.namelist() == sorted(files)
            assert opened.testzip() is None


def test_another_content_or_another_name_gives_another_digest(tmp_path: Path) -> None:
    before = write_zip(fill(tmp_path / "a", FILES), tmp_path / "a.zip")
    changed = write_zip(fill(tmp_path / "b", {**FILES, "python/dbt/main.py": b"x"}), tmp_path / "b.zip")
    renamed = {name.replace("main", "niam"): content for name, content in FILES.items()}
    assert len({before, changed, write_zip(fill(tmp_path / "c", renamed), tmp_path / "c.zip")}) == 3


def test_a_file_that_can_be_run_can_be_run_from_the_zip_and_no_other(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", FILES)
    (root / "python/dbt/lib.so").chmod(0o755)
    write_zip(root, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as opened:
        modes = {info.filename: stat.S_IMODE(info.external_attr >> 16) for info in opened.infolist()}
    assert modes.pop("python/dbt/lib.so") == 0o755
    assert set(modes.values()) == {0o644}


def test_bytecode_installer_files_and_console_scripts_are_left_out(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {**FILES, **dict.fromkeys(LEFT_OUT, b"left out")})
    assert [name for _path, name in entries(root)] == sorted(FILES)


def test_what_only_looks_like_it_is_kept(tmp_path: Path) -> None:
    kept = dict.fromkeys(
        ["python/dbt/bin/tool.py", "python/dbt/RECORD", "python/dbt/logs/a.py", "dbt/target/x.py"], b""
    )
    assert [name for _path, name in entries(fill(tmp_path / "root", kept))] == sorted(kept)


def test_what_dbt_leaves_in_its_project_is_left_out(tmp_path: Path) -> None:
    left = dict.fromkeys(["target/manifest.json", "logs/dbt.log", "dbt_packages/a/b.sql", ".user.yml"], b"")
    root = fill(tmp_path / "dbt_gold", {"dbt_project.yml": b"", "models/target/a.sql": b"", **left})
    assert [name for _path, name in entries(root)] == ["dbt_project.yml", "models/target/a.sql"]


# --- what is asked for ---


@pytest.mark.parametrize("platform", ["amd64", "", "X86_64"])
def test_a_platform_that_lambda_does_not_have_is_refused(tmp_path: Path, platform: str) -> None:
    with pytest.raises(ConfigurationError, match="one of x86_64, arm64 is allowed"):
        Build(tmp_path, tmp_path, platform)


@pytest.mark.parametrize("version", ["3.10", "3.14", "3.1", "3.11.2", "311", "", "3.11\n", "3.11 --index-url x"])
def test_a_python_version_that_lambda_does_not_have_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigurationError, match=r"3\.11, 3\.12 and 3\.13 are allowed"):
        Build(tmp_path, tmp_path, python_version=version)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", [None, "x86_64", "arm64"])
def test_every_other_build_is_accepted(tmp_path: Path, platform: str | None, version: str) -> None:
    assert Build(tmp_path, tmp_path, platform, version).platform == platform


# --- the builder ---


class Installer:
    """Stands for the package installer: writes what it would install, and remembers for what it was asked."""

    def __init__(self) -> None:
        self.installed: list[str] = []

    def __call__(self, _build: Build, name: str, target: Path) -> None:
        self.installed.append(name)
        for package in (*LOCKED[name], "boto3", "s3transfer"):
            metadata = f"Name: {package}\nVersion: 1.0\n".encode()
            fill(target, {f"{package}/__init__.py": package.encode(), f"{package}-1.0.dist-info/METADATA": metadata})
        fill(target, {"bin/dbt": b"#!/home/me/python", ".lock": b"", f"{name}.pyi": b""})


def compiled(_python: Path, content: Path) -> str:
    """Stand for the compiler."""
    for path in list(content.rglob("*.py")):
        fill(path.parent, {f"__pycache__/{path.stem}.cpython-311.pyc": b"compiled"})
    return "3.11.9"


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installer:
    fake = Installer()
    shutil.copytree(locks.FOLDER, tmp_path / "locks")
    monkeypatch.setattr(locks, "FOLDER", tmp_path / "locks")
    monkeypatch.setattr("lambdas.layers.build.install", fake)
    monkeypatch.setattr("lambdas.layers.build.interpreter", lambda version: Path(f"python{version}"))
    monkeypatch.setattr("lambdas.layers.build.compile_modules", compiled)
    monkeypatch.setattr("lambdas.layers.build.ship_parse", lambda _content: None)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a process was started"))
    return fake


@pytest.fixture
def build(tmp_path: Path, installer: Installer) -> Build:
    project = tmp_path / "project"
    fill(project, {"dbt_gold/dbt_project.yml": b"name: gold\nprofile: gold", "dbt_gold/target/x": b""})
    return Build(project, tmp_path / "build")


def by_name(build: Build) -> dict[str, Artifact]:
    return {artifact.name: artifact for artifact in build_all(build)}


def test_every_layer_and_the_functions_are_built_under_the_hash_of_their_content(build: Build) -> None:
    artifacts = by_name(build)
    assert set(artifacts) == {*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS}
    for name, artifact in artifacts.items():
        assert artifact.path == build.out / f"{name}-{artifact.content[:16]}.zip"
        assert artifact.zipped == artifact.path.stat().st_size
        with zipfile.ZipFile(artifact.path) as opened:
            assert artifact.unzipped == sum(info.file_size for info in opened.infolist())
        assert not artifact.reused
    assert {path.name for path in build.out.glob("*.zip")} == {artifact.path.name for artifact in artifacts.values()}
    assert list(build.out.glob(".*")) == []


def test_layers_lie_below_python_where_lambda_puts_them_on_the_path(build: Build) -> None:
    artifacts = by_name(build)
    for name in (*LAYER_PACKAGES, PROJECT_LAYER):
        assert all(entry.startswith("python/") for entry in names(artifacts[name].path)), name
    assert names(artifacts[PROJECT_LAYER].path) == [
        "python/dbt_gold/dbt_project.yml",
        "python/dbt_gold/profiles.yml",
    ]
    assert "python/dbt-redshift/__init__.py" in names(artifacts["dbt_redshift"].path)


def test_the_functions_lie_at_the_top_with_the_library_that_they_need(build: Build) -> None:
    found = names(by_name(build)[FUNCTIONS].path)
    assert {entry.split("/")[0] for entry in found} >= {"runtime", "lambdas", "pyyaml"}
    assert {
        "lambdas/check/handler.py",
        "lambdas/dbt_runner/handler.py",
        "lambdas/export/handler.py",
        "lambdas/register/handler.py",
        "lambdas/rotate/handler.py",
        "runtime/readiness.py",
        "runtime/secrets.yml",
    } <= set(found)
    assert not any(entry.startswith("python/") or "__pycache__" in entry for entry in found)
    # The builder itself runs nowhere: a change of it changes no function.
    assert not any(entry.startswith(("lambdas/layers", "lambdas/cli")) for entry in found)


def test_what_lambdas_runtime_brings_along_is_not_in_a_layer(build: Build, installer: Installer) -> None:
    artifacts = by_name(build)
    assert set(installer.installed) == {*LAYER_PACKAGES, FUNCTIONS}
    for name in LAYER_PACKAGES:
        assert not any("boto3" in entry or "s3transfer" in entry for entry in names(artifacts[name].path)), name


def test_what_has_not_changed_is_built_once(build: Build, installer: Installer) -> None:
    said: list[str] = []
    first = by_name(build)
    installer.installed.clear()
    second = {artifact.name: artifact for artifact in build_all(build, said.append)}
    assert all(artifact.reused for artifact in second.values())
    assert {name: replace(artifact, reused=False) for name, artifact in second.items()} == first
    assert (installer.installed, said) == ([], [])


def change_project(build: Build) -> Build:
    (build.project / "dbt_gold" / "dbt_project.yml").write_text("name: silver\nprofile: gold")
    return build


def change_lock(name: str) -> Callable[[Build], Build]:
    def change(build: Build) -> Build:
        with locks.lock_file(name).open("a") as file:
            file.write("another==1.0\n")
        return build

    return change


@pytest.mark.parametrize(
    ("change", "built"),
    [
        (change_project, {PROJECT_LAYER}),
        (change_lock("trino"), {"trino"}),
        (change_lock(FUNCTIONS), {FUNCTIONS}),
        # dbt takes a parse of its own version alone.
        (change_lock("dbt_redshift"), {"dbt_redshift", PROJECT_LAYER}),
        (lambda build: replace(build, bytecode=False), set(LAYER_PACKAGES)),
        (lambda build: replace(build, platform="arm64"), {*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS}),
        (lambda build: replace(build, python_version="3.13"), {*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS}),
    ],
)
def test_only_what_a_change_concerns_is_built_again(
    build: Build, change: Callable[[Build], Build], built: set[str]
) -> None:
    start = replace(build, python_version="3.12")
    by_name(start)
    again = by_name(change(start))
    assert {name for name, artifact in again.items() if not artifact.reused} == built


def test_a_zip_of_another_content_takes_the_old_ones_place(build: Build) -> None:
    before = by_name(build)[PROJECT_LAYER]
    (build.out / "stranger.txt").touch()
    after = by_name(change_project(build))[PROJECT_LAYER]
    assert after.sha256 != before.sha256
    assert not before.path.exists()
    assert len(list(build.out.glob(f"{PROJECT_LAYER}-*.zip"))) == 1
    assert (build.out / "stranger.txt").exists()


@pytest.mark.parametrize("damage", ["cut off", "gone", "stamp"])
def test_a_zip_that_is_damaged_or_gone_is_built_again(build: Build, damage: str) -> None:
    before = by_name(build)[PROJECT_LAYER]
    if damage == "cut off":
        before.path.write_bytes(before.path.read_bytes()[:-1])
    elif damage == "gone":
        before.path.unlink()
    else:
        (build.out / f"{PROJECT_LAYER}.json").write_text('{"key": ')
    after = by_name(build)[PROJECT_LAYER]
    assert not after.reused
    assert after.sha256 == before.sha256
    assert zipfile.is_zipfile(after.path)


def test_a_folder_of_builds_that_was_copied_is_used_where_it_is(build: Build, tmp_path: Path) -> None:
    by_name(build)
    copied = replace(build, out=tmp_path / "copy")
    shutil.copytree(build.out, copied.out)
    artifacts = by_name(copied)
    assert all(artifact.reused and artifact.path.parent == copied.out for artifact in artifacts.values())
    assert {path.name for path in copied.out.glob("*.zip")} == {artifact.path.name for artifact in artifacts.values()}


def test_an_artifact_that_lambda_would_refuse_is_refused_here(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = min(artifact.unzipped for artifact in build_all(build))
    shutil.rmtree(build.out)
    monkeypatch.setattr("lambdas.layers.build.MAX_UNZIPPED_BYTES", smallest - 1)
    with pytest.raises(FailedError, match=rf"bytes unzipped: Lambda allows {smallest - 1}$"):
        build_all(build)
    assert list(build.out.glob("*.zip")) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"packages.yml": b"packages: [{package: dbt-labs/dbt_utils}]"}, "has none in dbt_packages"),
        ({"dbt_project.yml": b"name: [gold"}, "cannot be read"),
        ({"dbt_project.yml": b"name: gold"}, "names no profile"),
    ],
)
def test_a_project_that_cannot_be_packed_is_refused_before_packages_are_installed(
    build: Build, installer: Installer, files: dict[str, bytes], said: str
) -> None:
    fill(build.dbt_folder, files)
    with pytest.raises(ConfigurationError, match=said) as refused:
        build_all(build)
    assert str(build.dbt_folder) in refused.value.message
    assert installer.installed == []
    assert not build.out.exists()


def test_a_folder_that_cannot_be_made_is_refused(build: Build) -> None:
    build.out.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"build cannot be made: File exists; a folder is needed"):
        build_all(build)


def test_a_full_disk_ends_a_build_with_one_message_and_the_next_goes_on(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_root: Path, _target: Path, **_options: bool) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("lambdas.layers.build.write_zip", full)
        with pytest.raises(FailedError, match="the build ended for No space left on device"):
            build_all(build)
    assert list(build.out.iterdir()) == []
    assert set(by_name(build)) == {*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS}


def test_the_limit_is_lambdas_own() -> None:
    assert MAX_UNZIPPED_BYTES == 250 * 1024 * 1024


def test_an_artifact_is_described_for_json(build: Build) -> None:
    described = by_name(build)[FUNCTIONS].to_dict()
    assert json.loads(json.dumps(described)) == described
    assert set(described) == {
        "name",
        "path",
        "sha256",
        "content_sha256",
        "zipped_bytes",
        "unzipped_bytes",
        "bytecode",
        "notes",
        "pruned",
        "reused",
    }


def test_progress_names_what_is_built(build: Build) -> None:
    said = io.StringIO()
    build_all(build, lambda line: print(line, file=said))
    assert f"{PROJECT_LAYER}: building" in said.getvalue()
