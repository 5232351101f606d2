"""What goes into layers and beside them: locks, pruning, profile, bills, limits, comparison and upload."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from lambdas import shipped_parse
from lambdas.layers import bytecode
from lambdas.layers.archive import content_digest, sha256_of, write_zip
from lambdas.layers.bill import Package, bill, bill_paths, licence_list, packages, wheel_hashes, write_bill
from lambdas.layers.catalogue import ARTIFACTS, FUNCTION_LAYERS, LOCKED, MAX_UNZIPPED_BYTES, Artifact, Build
from lambdas.layers.check import Finding, check_all
from lambdas.layers.diff import diff_all
from lambdas.layers.limits import limit_faults
from lambdas.layers.lock import lock_file, locked_versions, normalised
from lambdas.layers.native import is_compiled, module_faults, read_target
from lambdas.layers.parse_worker import MOMENT, canonical
from lambdas.layers.project import fill_project, project_entries
from lambdas.layers.prune import EVERY_LAYER, RULES, STAND_INS, Rule, prune
from lambdas.layers.publish import built, publish
from runtime.errors import ConfigurationError, FailedError
from stacks.transform import STEP_LAYERS

ROOT = Path(__file__).parents[2]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- locks ---


def test_layers_have_the_versions_that_the_tests_run_with() -> None:
    """`goldlake layers lock` mends it."""
    tested = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    tested = {normalised(name): version for name, version in tested.items()}
    for name in LOCKED:
        for package, versions in locked_versions(name).items():
            if package in tested:
                assert tested[package] in versions, f"{package} of {name}"


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_has_what_the_layer_asks_for_and_hashes_for_every_file(name: str) -> None:
    versions, hashes = locked_versions(name), wheel_hashes(lock_file(name))
    assert {normalised(package) for package in LOCKED[name]} <= versions.keys()
    assert versions.keys() == hashes.keys()
    assert all(hashes.values())
    assert all(re.fullmatch(r"[0-9a-f]{64}", found) for each in hashes.values() for found in each)


# --- pruning ---


def test_every_rule_says_why_and_none_stands_twice() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert len(rule.why.split()) >= 3, rule.name
        assert rule.layer in (*LOCKED, EVERY_LAYER), rule.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern)
def test_no_rule_takes_metadata(rule: Rule) -> None:
    name = rule.pattern.split("/")[0].strip("*.") or "some"
    for file in ("METADATA", "entry_points.txt", "licenses/tests/a.c", "x.pyi"):
        assert not rule.takes(f"{name}-1.0.dist-info/{file}")


@pytest.mark.parametrize(
    "needed",
    [
        "dbt/include/global_project/tests/generic/builtin.sql",
        "dbt/include/redshift/macros/adapters.sql",
        "babel/locale-data/en_US.dat",
        "babel/locale-data/root.dat",
        "babel/global.dat",
        "networkx/algorithms/dag.py",
        "psycopg2_binary-2.9.dist-info/METADATA",
        "leather/testcase.py",
    ],
)
def test_what_dbt_reads_stays(needed: str) -> None:
    assert [rule.name for rule in RULES if rule.takes(needed)] == []


def test_pruning_counts_what_each_rule_takes_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{"lxml/etree.so": "", "lxml/html/a.py": "", "dbt/main.py": "", "dbt/main.pyi": "", "psycopg2/a.so": "x"},
    )
    taken = prune("dbt_redshift", tmp_path)
    assert (taken["dbt_redshift: lxml/*"], taken["*: *.pyi"], taken["dbt_redshift: psycopg2/*"]) == (2, 1, 1)
    assert taken["dbt_redshift: setuptools/*"] == 0
    assert tree(tmp_path) == {"dbt/main.py", *STAND_INS["dbt_redshift"]}
    assert not (tmp_path / "lxml").exists()


def test_a_layers_rules_leave_other_layers_alone(tmp_path: Path) -> None:
    write(tmp_path, **{"lxml/etree.so": ""})
    assert set(prune("trino", tmp_path)) == {rule.name for rule in RULES if rule.layer == EVERY_LAYER}
    assert tree(tmp_path) == {"lxml/etree.so"}


def test_a_stand_in_says_what_is_missing_and_why() -> None:
    module: dict[str, Any] = {}
    exec(STAND_INS["dbt_redshift"]["psycopg2/__init__.py"], module)  # noqa: S102 - our own source
    with pytest.raises(AttributeError, match=r"psycopg2\.connect: the layer dbt_redshift has no psycopg2"):
        module["__getattr__"]("connect")


# --- a project of one's own ---

OWN = {"dbt_project.yml": "name: shop\nprofile: shop\n", "models/a.sql": "select 1"}
PLAIN = "shop: {outputs: {redshift: {type: redshift, password: %s}}}"


def test_a_project_without_a_profile_gets_one_that_reads_what_the_runner_sets(tmp_path: Path) -> None:
    fill_project(write(tmp_path / "shop", **OWN), tmp_path / "python")
    assert tree(tmp_path / "python") == {f"dbt_gold/{name}" for name in (*OWN, "profiles.yml")}
    output = profile_of(tmp_path)["shop"]["outputs"]["redshift"]
    for key, variable in (
        ("host", "REDSHIFT_HOST"),
        ("user", "REDSHIFT_USER"),
        ("password", "DBT_ENV_SECRET_REDSHIFT_PASSWORD"),
        ("sslmode", "REDSHIFT_SSLMODE"),
    ):
        assert f"env_var('{variable}'" in output[key]


def profile_of(folder: Path) -> Any:
    return yaml.safe_load((folder / "python" / "dbt_gold" / "profiles.yml").read_text())


def test_a_profile_that_has_the_target_is_kept(tmp_path: Path) -> None:
    own = PLAIN % "\"{{ env_var('DBT_ENV_SECRET_X') }}\""
    fill_project(write(tmp_path / "shop", **OWN, **{"profiles.yml": own}), tmp_path / "python")
    assert (tmp_path / "python" / "dbt_gold" / "profiles.yml").read_text() == own


@pytest.mark.parametrize("own", ["other: {outputs: {redshift: {type: redshift}}}", "shop: {outputs: {dev: {type: x}}}"])
def test_a_profile_without_the_target_is_replaced(tmp_path: Path, own: str) -> None:
    fill_project(write(tmp_path / "shop", **OWN, **{"profiles.yml": own}), tmp_path / "python")
    assert profile_of(tmp_path)["shop"]["outputs"]["redshift"]["host"] == "{{ env_var('REDSHIFT_HOST') }}"


def test_a_profile_with_a_password_in_plain_text_is_refused_without_naming_it(tmp_path: Path) -> None:
    source = write(tmp_path / "shop", **OWN, **{"profiles.yml": PLAIN % "hunter2"})
    with pytest.raises(ConfigurationError, match=r"password of shop\.redshift is plain text") as refused:
        fill_project(source, tmp_path / "python")
    assert "hunter2" not in refused.value.message


def test_a_project_without_a_profiles_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="names no profile"):
        fill_project(write(tmp_path / "shop", **{"dbt_project.yml": "name: shop"}), tmp_path / "python")


def test_a_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no dbt_project\.yml"):
        Build(tmp_path, tmp_path, dbt_project=tmp_path)


def test_packages_that_are_asked_for_must_be_installed_and_are_packed(tmp_path: Path) -> None:
    source = write(tmp_path / "shop", **OWN, **{"packages.yml": "packages: [{package: dbt-labs/dbt_utils}]"})
    with pytest.raises(ConfigurationError, match="has none in dbt_packages") as refused:
        project_entries(source)
    assert refused.value.hint == f"dbt deps --project-dir {source}"
    write(source, **{"dbt_packages/dbt_utils/macros/a.sql": ""})
    assert "dbt_packages/dbt_utils/macros/a.sql" in [name for _path, name in project_entries(source)]


def test_what_may_hold_secrets_or_is_left_over_is_not_packed(tmp_path: Path) -> None:
    left = {".env": "", ".env.prod": "", "models/.env": "", "target/x": "", "logs/dbt.log": "", ".git/config": ""}
    source = write(tmp_path / "shop", **OWN, **left)
    assert {name for _path, name in project_entries(source)} == set(OWN)


def test_a_parse_is_freed_of_times_ids_and_the_builders_folders() -> None:
    def parsed(home: str, moment: float) -> dict[str, Any]:
        return {
            "metadata": {"generated_at": str(moment), "invocation_id": home, "user_id": home, "dbt_version": "1.11"},
            "_parsing_info": {"x": moment},
            "nodes": {"a": {"created_at": moment, "root_path": f"{home}/shop", "rate": 0.5}},
            "files": [
                {"modification_time": moment, "project_root": f"{home}/shop/dbt_packages/a", "at": f"{home}/shopping"}
            ],
        }

    one, two = (
        canonical(parsed(home, moment), {f"{home}/shop": "/opt/python/dbt_gold"})
        for home, moment in (("/home/me", 1.5e9), ("/tmp/x", 1.6e9))
    )
    assert one["files"][0].pop("at") != two["files"][0].pop("at")
    assert one == two
    assert one["nodes"]["a"] == {"created_at": MOMENT, "root_path": "/opt/python/dbt_gold", "rate": 0.5}
    assert one["metadata"]["dbt_version"] == "1.11"


def test_a_parse_is_offered_where_it_lies_and_not_with_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[bool] = []
    monkeypatch.setattr(shipped_parse, "leave_out_connection", lambda: called.append(True))
    assert (shipped_parse.options(tmp_path), called) == ([], [])
    write(tmp_path, **{shipped_parse.FILE: ""})
    assert (shipped_parse.options(tmp_path, variables=True), called) == ([], [])
    expected = ["--partial-parse-file-path", str(tmp_path / shipped_parse.FILE)]
    assert (shipped_parse.options(tmp_path), called) == (expected, [True])


# --- bytecode ---


def test_bytecode_changes_the_zip_and_its_minor_version_the_name(tmp_path: Path) -> None:
    root = write(tmp_path / "a", **{"python/a.py": "", "python/__pycache__/a.cpython-311.pyc": "one compiler's"})
    first = write_zip(root, tmp_path / "a.zip", bytecode=True)
    meaning = content_digest(root, bytecode="3.11")
    write(root, **{"python/__pycache__/a.cpython-311.pyc": "another patch release's"})
    assert write_zip(root, tmp_path / "b.zip", bytecode=True) != first
    assert content_digest(root, bytecode="3.11") == meaning
    assert len({meaning, content_digest(root, bytecode="3.12"), content_digest(root)}) == 3
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert archive.namelist() == ["python/__pycache__/a.cpython-311.pyc", "python/a.py"]


def test_without_an_interpreter_of_the_version_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        returncode = 2
        stdout = ""

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Ended())
    monkeypatch.setattr("sys.version_info", type("V", (), {"major": 3, "minor": 11})())
    monkeypatch.setenv("PYENV_ROOT", "/nowhere")
    assert bytecode.interpreter("3.13") is None
    assert bytecode.interpreter("3.11") is not None


def test_an_interpreter_of_pyenv_is_found_behind_its_stub_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        **{"shims/python3.13": "", "versions/3.13.0/bin/python3.13": "", "versions/3.13.11/bin/python3.13": ""},
    )
    for path in tmp_path.rglob("python3.13"):
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr("sys.version_info", type("V", (), {"major": 3, "minor": 11})())
    monkeypatch.setattr(bytecode, "_version", lambda path: "" if "shims" in str(path) else path.parts[-3])
    assert bytecode.interpreter("3.13") == tmp_path / "versions/3.13.11/bin/python3.13"


# --- bills ---

DBT = "Name: dbt_core\nVersion: 1.11\nLicense-Expression: Apache-2.0\n\ntext"
OLD = "Name: Old\nVersion: 2\nLicense: UNKNOWN words\nClassifier: License :: OSI Approved :: BSD License\n"


def metadata(folder: Path) -> Path:
    files = {"dbt_core-1.11.dist-info/METADATA": DBT, "dbt_core-1.11.dist-info/licenses/LICENSE": "Apache"}
    return write(
        folder, **files, **{"Old-2.dist-info/METADATA": OLD, "bare-3.dist-info/METADATA": "Name: bare\nVersion: 3"}
    )


def test_a_bill_names_every_package_with_version_licence_and_the_hashes_that_the_lock_allows(tmp_path: Path) -> None:
    found = packages(metadata(tmp_path))
    made = bill("dbt_redshift", "ab" * 32, found, {"dbt-core": ["cd" * 32]})
    assert made["bomFormat"] == "CycloneDX"
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["serialNumber"])
    assert [(part["purl"], part.get("licenses")) for part in made["components"]] == [
        ("pkg:pypi/bare@3", None),
        ("pkg:pypi/dbt-core@1.11", [{"expression": "Apache-2.0"}]),
        ("pkg:pypi/old@2", [{"license": {"name": "BSD License"}}]),
    ]
    assert made["components"][1]["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    references = {part["bom-ref"] for part in (*made["components"], made["metadata"]["component"])}
    assert {name for each in made["dependencies"] for name in (each["ref"], *each["dependsOn"])} == references
    assert licence_list(found) == "bare\t3\tunknown\ndbt_core\t1.11\tApache-2.0\nOld\t2\tBSD License\n"
    assert found[1] == Package("dbt_core", "1.11", "Apache-2.0", True, found[1].files)
    assert list(found[1].files) == ["licenses/LICENSE"]


def test_the_same_content_has_the_same_bill_and_another_content_another(tmp_path: Path) -> None:
    metadata(tmp_path / "a")
    bills = []
    for number, meaning in enumerate(("ab" * 32, "ab" * 32, "cd" * 32)):
        paths = write_bill("trino", tmp_path / "a", meaning, None, tmp_path / f"{number}.zip")
        bills.append(paths[0].read_bytes())
    assert bills[0] == bills[1] != bills[2]


# --- limits ---


def artifact(name: str, unzipped: int = 10, zipped: int = 1) -> Artifact:
    return Artifact(name, Path(f"{name}-1.zip"), "a", zipped, unzipped, reused=False)


def test_the_limits_ask_for_the_layers_that_the_program_attaches() -> None:
    expected = {step: set(found) for step, found in STEP_LAYERS.items()}
    expected["register"].add("trino")
    assert {step: set(FUNCTION_LAYERS[step]) for step in STEP_LAYERS} == expected


def test_a_function_over_the_limit_is_named_with_its_parts() -> None:
    sizes = {"functions": 4, "duckdb": 100, "delta": MAX_UNZIPPED_BYTES - 104}
    artifacts = {name: artifact(name, size) for name, size in sizes.items()}
    assert limit_faults(artifacts) == []
    artifacts["functions"] = artifact("functions", 5)
    (fault,) = limit_faults(artifacts)
    assert fault.startswith(
        "function export is 262,144,001 bytes unzipped (delta 262,143,896, duckdb 100, functions 5)"
    )


def test_too_many_layers_and_code_too_large_for_a_direct_upload_are_named() -> None:
    assert limit_faults({}, {"export": ("a", "b", "c", "d", "e", "f")}) == [
        "function export has 6 layers: Lambda allows 5"
    ]
    code = {"functions": artifact("functions", zipped=52_428_801)}
    assert limit_faults(code) == ["functions-1.zip is 52,428,801 bytes: Lambda takes 52,428,800 directly, more from S3"]


# --- what is compiled ---


def elf(machine: int, *versions: str) -> bytes:
    """Return the beginning of a compiled file for a machine, which asks for these versions of glibc."""
    names = b"".join(f"\0{version}".encode() for version in versions)
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + names + b"\0"


X86_64, ARM64 = 62, 183


@pytest.mark.parametrize(
    ("name", "content", "target", "said"),
    [
        ("a.cpython-311-x86_64-linux-gnu.so", elf(X86_64, "GLIBC_2.17"), "x86_64, Python 3.11", None),
        ("a.abi3.so", elf(ARM64, "GLIBC_2.34", "GLIBC_2.2.5"), "arm64, Python 3.12", None),
        ("a.abi3.so", elf(X86_64), "arm64, Python 3.12", "is for x86_64, not arm64"),
        ("a.abi3.so", elf(40), "arm64, Python 3.12", "is for machine 40, not arm64"),
        ("a.libs/b-1.so.1.1", elf(ARM64), "x86_64, Python 3.12", "is for arm64, not x86_64"),
        ("a.duckdb_extension", elf(ARM64), "x86_64, Python 3.12", "is for arm64, not x86_64"),
        ("a.cpython-312-x86_64-linux-gnu.so", elf(X86_64), "x86_64, Python 3.11", "is for Python 3.12, not 3.11"),
        ("__pycache__/a.cpython-313.pyc", b"", "x86_64, Python 3.12", "is for Python 3.13, not 3.12"),
        ("__pycache__/a.cpython-312.pyc", b"", "x86_64, Python 3.12", None),
        ("a.abi3.so", elf(X86_64, "GLIBC_2.9", "GLIBC_2.28"), "x86_64, Python 3.11", "needs glibc 2.28"),
        ("a.abi3.so", elf(X86_64, "GLIBC_2.28"), "x86_64, Python 3.12", None),
        ("a.abi3.so", elf(X86_64, "GLIBC_2.35"), "x86_64, Python 3.13", "needs glibc 2.35"),
        ("a.cpython-311-darwin.so", b"\xcf\xfa\xed\xfe", "x86_64, Python 3.11", "is no file of Linux"),
        ("a.dylib", b"\xcf\xfa\xed\xfe", "x86_64, Python 3.11", "is for another system"),
        ("a.cpython-311-darwin.so", b"\xcf\xfa\xed\xfe", "this machine, Python 3.11", None),
    ],
)
def test_what_is_compiled_for_another_target_is_named(name: str, content: bytes, target: str, said: str | None) -> None:
    assert is_compiled(name)
    found = module_faults([(name, content)], *read_target(target))
    assert [line for line in found if said and said in line and line.startswith(name)] == found
    assert bool(found) == bool(said)


def test_a_check_names_what_is_compiled_for_another_target(tmp_path: Path) -> None:
    out = make_build(tmp_path / "out", target="arm64, Python 3.13")
    stamp = json.loads((out / "delta.json").read_text())
    path = Path(stamp["path"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("python/a.abi3.so", elf(X86_64))
    (out / "delta.json").write_text(json.dumps({**stamp, "sha256": sha256_of(path)}))
    found = faults(check_all(out))
    assert found["delta", "compiled for the target"] == "python/a.abi3.so is for x86_64, not arm64"
    assert ("trino", "compiled for the target") not in found


# --- a folder of builds ---


def make_build(out: Path, *, target: str = "arm64, Python 3.13", **changed: str) -> Path:
    """Write a build of small artifacts, as build_all leaves it."""
    out.mkdir()
    for name in ARTIFACTS:
        root = out / f"{name}-root"
        content = root / "python"
        text = f"Name: {name}\nVersion: {changed.get(name, '1')}\n"
        write(content, **{f"{name}-{changed.get(name, '1')}.dist-info/METADATA": text, "a.py": changed.get(name, "")})
        meaning = content_digest(root)
        path = out / f"{name}-{meaning[:16]}.zip"
        digest = write_zip(root, path)
        write_bill(name, content, meaning, None, path)
        size = path.stat().st_size
        made = replace(artifact(name, size, size), path=path, sha256=digest, content=meaning)
        (out / f"{name}.json").write_text(json.dumps({"key": "k", "target": target, **made.to_dict()}))
    return out


def faults(findings: list[Finding]) -> dict[tuple[str, str], str]:
    return {(finding.artifact, finding.check): finding.fault for finding in findings if finding.fault}


def test_a_check_names_missing_metadata_the_missing_parse_and_idle_rules(tmp_path: Path) -> None:
    found = faults(check_all(make_build(tmp_path / "out")))
    assert "dbt-core" in found["dbt_redshift", "metadata of every package"]
    assert "deltalake" in found["delta", "metadata of every package"]
    assert "dbt_redshift: lxml/*" in found["all", "every pruning rule matches something"]
    assert found["dbt_project", "dbt's parse of the project"] == "none"
    assert ("all", "Lambda's limits") not in found


def test_imports_are_not_tried_for_another_machine(tmp_path: Path) -> None:
    findings = check_all(make_build(tmp_path / "out"))
    skipped = [finding.skipped for finding in findings if finding.check == "imports"]
    assert len(skipped) == len(LOCKED)
    assert set(skipped) == {"built for arm64, Python 3.13, which does not run here"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda out: next(out.glob("trino-*.zip")).write_bytes(b""), "is not what was built"),
        (lambda out: next(out.glob("trino-*.zip")).unlink(), "is gone"),
        (lambda out: next(out.glob("trino-*.cdx.json")).unlink(), "missing"),
        (lambda out: (out / "trino.json").unlink(), "not built in"),
    ],
)
def test_a_check_finds_what_is_damaged(tmp_path: Path, damage: Callable[[Path], Any], said: str) -> None:
    out = make_build(tmp_path / "out")
    damage(out)
    assert said in faults(check_all(out))["trino", "the zip is the one that was built"]


def test_a_comparison_names_packages_files_and_bytes(tmp_path: Path) -> None:
    before, after = make_build(tmp_path / "a"), make_build(tmp_path / "b", trino="2")
    assert diff_all(before, before) == []
    (found,) = diff_all(before, after)
    assert (found.name, found.packages, found.changed) == ("trino", ("trino 1 -> 2",), ("python/a.py",))
    assert found.added == ("python/trino-2.dist-info/METADATA",)
    assert found.removed == ("python/trino-1.dist-info/METADATA",)


def test_a_comparison_with_a_folder_without_a_build_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no build in"):
        diff_all(make_build(tmp_path / "a"), tmp_path)
    (tmp_path / "a" / "trino.json").unlink()
    with pytest.raises(ConfigurationError, match=r"trino is in .* alone"):
        diff_all(tmp_path / "a", make_build(tmp_path / "b"))


class Bucket:
    """Stands for S3, and for the connection that has a client of it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []

    def client(self, _service: str) -> Bucket:
        return self

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, int]:  # noqa: N803 - boto3's names
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")
        return {"ContentLength": len(self.objects[Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: Any, ContentType: str) -> None:  # noqa: N803
        self.objects[Key] = Body.read()
        self.puts.append(Key)


def test_an_upload_sends_what_is_not_there_and_nothing_twice(tmp_path: Path) -> None:
    out, bucket = make_build(tmp_path / "out"), Bucket()
    aws: Any = bucket
    artifacts = [found for _target, found in built(out)]
    planned = publish(aws, "artifacts", artifacts, dry_run=True)
    assert {upload.outcome for upload in planned} == {"would upload"}
    assert bucket.puts == []
    first = publish(aws, "artifacts", artifacts)
    assert {upload.outcome for upload in first} == {"uploaded"}
    assert set(bucket.objects) == {
        f"artifacts/layers/{path.name}" for found in artifacts for path in (found.path, *bill_paths(found.path))
    }
    assert {upload.outcome for upload in publish(aws, "artifacts", artifacts)} == {"there"}
    assert len(bucket.puts) == len(first)
    # A zip is the last of its three: where it is, its bill is.
    assert [key.endswith(".zip") for key in bucket.puts] == [False, False, True] * len(ARTIFACTS)


def test_nothing_is_uploaded_when_a_function_would_be_over_lambdas_limits(tmp_path: Path) -> None:
    out, bucket = make_build(tmp_path / "out"), Bucket()
    aws: Any = bucket
    artifacts = {found.name: found for _target, found in built(out)}
    for changed, said in (
        (replace(artifacts["delta"], unzipped=MAX_UNZIPPED_BYTES), "bytes unzipped"),
        (replace(artifacts["functions"], zipped=52_428_801), "Lambda takes 52,428,800 directly"),
    ):
        larger = {**artifacts, changed.name: changed}
        with pytest.raises(FailedError, match=said):
            publish(aws, "artifacts", list(larger.values()))
    # A layer may be larger than a direct upload: it is published from S3.
    publish(aws, "artifacts", [replace(artifacts["delta"], zipped=52_428_801)], dry_run=True)
    assert bucket.puts == []


def test_an_upload_of_half_a_build_is_refused(tmp_path: Path) -> None:
    out = make_build(tmp_path / "out")
    (out / "delta.json").unlink()
    next(out.glob("trino-*.licences.tsv")).unlink()
    with pytest.raises(ConfigurationError, match="delta, trino") as refused:
        built(out)
    assert refused.value.hint == "goldlake layers build"
