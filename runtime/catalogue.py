"""The catalogue of secrets: which there are, their keys, and who gets them under which names.

secrets.yml beside this file is the only place where secrets are declared. The program that makes their entries, the
seeder and the fetcher all read it here; `runtime.generators` makes the values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from runtime.errors import ConfigurationError
from runtime.generators import STRICT, Generator, GeneratorEntry, Place, Text

CATALOGUE = Path(__file__).with_name("secrets.yml")
SecretKind = Literal["json", "text", "binary"]
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True)
class Key:
    """One value of a secret."""

    name: str
    env: str
    """Its environment variable; empty when that is the name in upper case."""
    local: Generator
    """How the default for local development is made."""
    generate: Generator | None
    """How a value is made elsewhere. None: an operator has to give it."""

    @property
    def sources(self) -> tuple[Place, ...]:
        """The keys whose values this one is made of."""
        return tuple(dict.fromkeys((*self.local.sources, *(self.generate.sources if self.generate else ()))))


@dataclass(frozen=True)
class Secret:
    """One entry of Secrets Manager."""

    name: str
    """The second part of the entry's id, `<prefix>/<name>`."""
    description: str
    profiles: tuple[str, ...]
    """Who gets its keys."""
    keys: Mapping[str, Key]
    kind: SecretKind = "json"
    """json: an object of the keys; text: the one key's value itself; binary: the bytes whose base64 that value is."""


@dataclass(frozen=True)
class Catalogue:
    """All that secrets.yml declares, in its order."""

    profiles: tuple[str, ...]
    secrets: Mapping[str, Secret]

    def of_profile(self, name: str) -> list[Secret]:
        """Return the secrets that a profile gets. Raises ConfigurationError for a profile that is not declared."""
        if name not in self.profiles:
            raise ConfigurationError(f"there is no profile {name!r}; there are {', '.join(self.profiles)}")
        return [secret for secret in self.secrets.values() if name in secret.profiles]

    def variables(self, profile: str) -> dict[str, Place]:
        """Return what a profile's environment variables are made of: the variable's name -> (secret, key).

        A key's variable is its `env`, else its name in upper case. Where two secrets of the profile would give the same
        name, those that have no `env` take their secret's name, see `qualified_name`.
        """
        names = _variables(self.of_profile(profile))
        return {name: places[0] for name, places in names.items()}

    def places(self) -> Iterator[tuple[Place, Key]]:
        """Yield every key with its place."""
        for secret in self.secrets.values():
            for key in secret.keys.values():
                yield (secret.name, key.name), key

    def key(self, place: Place) -> Key:
        """Return the key at a place. Raises ConfigurationError when there is none."""
        secret = self.secrets.get(place[0])
        if secret is None or place[1] not in secret.keys:
            raise ConfigurationError(f"the catalogue has no key {place[0]}.{place[1]}")
        return secret.keys[place[1]]

    def local_default(self, secret: str, key: str) -> str:
        """Return a key's value for local development. It is the same on every machine unless its generator is random.

        It protects nothing. Raises ConfigurationError when there is no such key.
        """
        return self.key((secret, key)).local.local(secret, key, self.local_default)


def variable_of(key: Key) -> str:
    """Return the key's own environment variable."""
    return key.env or key.name.upper()


def qualified_name(secret: str, variable: str) -> str:
    """Return the variable with its secret's name in it.

    POSTGRES_USER of postgres-airflow is POSTGRES_AIRFLOW_USER: the first word of both is not said twice. Others are
    `<SECRET>_<VARIABLE>`.
    """
    words = secret.upper().replace("-", "_")
    first = words.split("_")[0] + "_"
    return f"{words}_{variable.removeprefix(first)}"


def _variables(found: Sequence[Secret]) -> dict[str, list[Place]]:
    """Return each variable with the keys that would give it; more than one is a fault."""
    own: dict[str, list[str]] = {}
    for secret in found:
        for key in secret.keys.values():
            own.setdefault(variable_of(key), []).append(secret.name)
    names: dict[str, list[Place]] = {}
    for secret in found:
        for key in secret.keys.values():
            name = variable_of(key)
            # What the catalogue says in so many words is what the reader of the variable looks for.
            shared = len(set(own[name])) > 1 and not key.env
            names.setdefault(qualified_name(secret.name, name) if shared else name, []).append((secret.name, key.name))
    return names


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Return the catalogue in a file, by default the project's own.

    Raises ConfigurationError with every fault and its place in the file; those between entries (a source that is not
    there, a cycle, two keys with one variable) are looked for when each entry is sound by itself.
    """
    file = path or CATALOGUE
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigurationError(f"{file} is no readable YAML: {_yaml_fault(exc)}") from None
    try:
        declared = _File.model_validate(content)
    except ValidationError as exc:
        raise _refused(file, [_fault(fault) for fault in exc.errors(include_input=False, include_url=False)]) from None
    made = Catalogue(
        tuple(declared.profiles),
        MappingProxyType({name: entry.made(name) for name, entry in declared.secrets.items()}),
    )
    faults = list(_faults_between(made))
    if faults:
        raise _refused(file, faults)
    return made


def _refused(file: Path, faults: Sequence[str]) -> ConfigurationError:
    lines = "".join(f"\n  {fault}" for fault in faults)
    return ConfigurationError(f"{file.name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:{lines}")


def _fault(fault: Any) -> str:
    """Return pydantic's fault as one line; the value, which may be a secret's, is left out."""
    path = ".".join(str(part) for part in fault["loc"]) or "the file"
    return f"{path}: {fault['msg'].removeprefix('Value error, ')}"


def _yaml_fault(fault: yaml.YAMLError) -> str:
    """Return what is wrong and where; PyYAML's own text quotes the line."""
    mark = getattr(fault, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(fault, 'problem', None) or type(fault).__name__}{where}"


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice; YAML forbids it, and PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _KeyEntry(BaseModel):
    model_config = STRICT
    env: Annotated[str, Field(strict=True, pattern=rf"^{_VARIABLE.pattern}$")] = ""
    local: GeneratorEntry | None = None
    generate: GeneratorEntry | None = None

    @model_validator(mode="after")
    def _has_a_default(self) -> _KeyEntry:
        if self.local is None and self.generate is None:
            raise ValueError("local or generate is needed: how the value is made")
        if self.generate is not None and self.generate.derived is not None:
            raise ValueError("generate cannot be derived: everyone can derive that value")
        return self

    def made(self, name: str) -> Key:
        local, generate = self.local or self.generate, self.generate
        assert local is not None  # noqa: S101 - refused above
        return Key(name, self.env, local.made(), generate.made() if generate else None)


class _SecretEntry(BaseModel):
    model_config = STRICT
    description: Text
    profiles: list[Text]
    kind: SecretKind = "json"
    keys: Annotated[dict[Text, _KeyEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_sound(self) -> _SecretEntry:
        if self.kind != "json" and len(self.keys) > 1:
            raise ValueError(f"a secret of kind {self.kind} has one key, its whole value")
        wrong = [
            name
            for name, key in self.keys.items()
            if not key.env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name.upper())
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be an environment variable: give it an `env`")
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError("a profile is named twice")
        return self

    def made(self, name: str) -> Secret:
        keys = {key: entry.made(key) for key, entry in self.keys.items()}
        return Secret(name, self.description, tuple(self.profiles), MappingProxyType(keys), self.kind)


# Secrets Manager takes more; a dot parts secret and key in `secret.key`, and the rest would be no variable's name.
_Name = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]


class _File(BaseModel):
    model_config = STRICT
    version: Literal[1]
    profiles: Annotated[list[_Name], Field(min_length=1)]
    secrets: Annotated[dict[_Name, _SecretEntry], Field(min_length=1)]


def _faults_between(catalogue: Catalogue) -> Iterator[str]:
    """Yield what is wrong between entries that are sound by themselves."""
    for secret in catalogue.secrets.values():
        for profile in secret.profiles:
            if profile not in catalogue.profiles:
                yield f"secrets.{secret.name}.profiles: there is no profile {profile!r}"
    missing = False
    for (secret_name, key_name), key in catalogue.places():
        for source in key.sources:
            if source[0] not in catalogue.secrets or source[1] not in catalogue.secrets[source[0]].keys:
                missing = True
                yield f"secrets.{secret_name}.keys.{key_name}: its source {'.'.join(source)} is not in the catalogue"
    if not missing:
        yield from _cycles(catalogue)
    for profile in catalogue.profiles:
        for variable, places in _variables(catalogue.of_profile(profile)).items():
            if len(places) > 1:
                both = " and ".join(".".join(place) for place in places)
                yield f"profiles.{profile}: {both} would both be {variable}; give one an `env`"


def _cycles(catalogue: Catalogue) -> Iterator[str]:
    """Yield every cycle of sources once, by the names on it."""
    sources = {place: key.sources for place, key in catalogue.places()}
    done: set[Place] = set()

    def follow(place: Place, path: tuple[Place, ...]) -> Iterator[str]:
        if place in path:
            names = [".".join(on) for on in (*path[path.index(place) :], place)]
            yield f"secrets.{place[0]}.keys.{place[1]}: its value is made of itself: {' <- '.join(names)}"
        elif place not in done:
            for source in sources[place]:
                yield from follow(source, (*path, place))
            done.add(place)

    for start in sources:
        yield from follow(start, ())
