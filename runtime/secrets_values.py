"""Which value each key of a run of the seeder gets: given, kept, a default, generated, or made of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.catalogue import Catalogue, Key, qualified_name
from runtime.errors import ConfigurationError
from runtime.generators import Generator, Place, place_of
from runtime.secrets_entry import Entry

OVERRIDE_PREFIX = "OVERRIDE_"


def override_name(key: str) -> str:
    """Return the environment variable that replaces a key's value."""
    return OVERRIDE_PREFIX + re.sub(r"[^A-Z0-9_]", "_", key.upper())


def rotating(catalogue: Catalogue, rotate: Collection[str]) -> dict[Place, bool]:
    """Return the keys that shall have another value; True for those that were named themselves."""
    found: dict[Place, bool] = {}
    for name in rotate:
        if name in catalogue.secrets:
            found = {**{(name, key): False for key in catalogue.secrets[name].keys}, **found}
            continue
        try:
            place = place_of(name)
        except ValueError:
            raise ConfigurationError(
                f"the catalogue has no secret {name}; it has {', '.join(catalogue.secrets)}"
            ) from None
        catalogue.key(place)
        found[place] = True
    return found


def overrides_in(
    catalogue: Catalogue, environment: Mapping[str, str], progress: Callable[[str], None]
) -> dict[Place, str]:
    """Return the values that the environment gives. An empty one counts as none.

    OVERRIDE_<SECRET>_<KEY> is for one key (OVERRIDE_POSTGRES_AIRFLOW_USER, as in the variables of a profile, too),
    OVERRIDE_<KEY> for all of that name. Raises ConfigurationError for a variable that could mean either.
    """
    one: dict[str, list[Place]] = {}
    many: dict[str, list[Place]] = {}
    for place, _key in catalogue.places():
        own = override_name(place[1])
        many.setdefault(own, []).append(place)
        variable = own.removeprefix(OVERRIDE_PREFIX)
        for name in {override_name(f"{place[0]}_{variable}"), override_name(qualified_name(place[0], variable))}:
            one.setdefault(name, []).append(place)
    given = {name: value for name, value in environment.items() if name.startswith(OVERRIDE_PREFIX) and value}
    values: dict[Place, str] = {}
    for name in sorted(given.keys() & many.keys()):
        if len(many[name]) > 1:
            progress(f"{name} replaces {' and '.join('.'.join(place) for place in many[name])}")
        values |= dict.fromkeys(many[name], given[name])
    for name in sorted(given.keys() & one.keys()):
        if len({*one[name], *many.get(name, ())}) > 1:
            meant = sorted({".".join(place) for place in (*one[name], *many.get(name, ()))})
            raise ConfigurationError(f"{name} could mean {' or '.join(meant)}; name one of them otherwise")
        values[one[name][0]] = given[name]
    for name in sorted(given.keys() - one.keys() - many.keys()):
        progress(f"{name} is the name of no key, and replaces nothing")
    return values


@dataclass
class Rules:
    """How the values of one run are chosen."""

    catalogue: Catalogue
    selected: Sequence[str]
    """The secrets that are seeded."""
    overrides: Mapping[Place, str] = field(repr=False)
    rotating: Mapping[Place, bool]
    """The keys that shall have another value; True for those that were named themselves."""
    generating: bool
    emulated: bool
    first: dict[Place, str | None] = field(default_factory=dict, repr=False)
    """What was there when this run began: a key that has another value by now needs no rotation any more."""
    made: dict[Place, str] = field(default_factory=dict, repr=False)
    """What this run has generated, so that a second try writes the same."""

    def generator(self, key: Key) -> Generator | None:
        """Return what makes the key's value here; None when an operator has to give it."""
        if not self.generating:
            return key.local
        return key.generate or (key.local if self.emulated else None)

    def all_sources(self, key: Key) -> Iterator[Place]:
        """Yield the keys that a key's value is made of, and those that they are made of."""
        for source in key.sources:
            yield source
            yield from self.all_sources(self.catalogue.key(source))

    def check_rotation(self) -> None:
        """Raise ConfigurationError for a key that was named and cannot get another value."""
        for (secret, key), named in self.rotating.items():
            generator = self.generator(self.catalogue.key((secret, key)))
            if secret not in self.selected:
                raise ConfigurationError(f"{secret}.{key} cannot be rotated: its secret is not seeded here")
            if named and generator is not None and not generator.rotates and (secret, key) not in self.overrides:
                sources = " and ".join(".".join(source) for source in generator.sources)
                raise ConfigurationError(
                    f"{secret}.{key} cannot be rotated: it is {f'made of {sources}' if sources else 'a fixed text'}",
                    hint=f"--rotate {sources}" if len(generator.sources) == 1 else f"set {override_name(key)}",
                )


class Values:
    """The values that the keys shall have in one round, each worked out once."""

    def __init__(self, rules: Rules, entries: Mapping[str, Entry]) -> None:
        self._rules = rules
        self._entries = entries
        self._found: dict[Place, str | None] = {}
        self._not_given: list[Place] = []
        self._without_source: list[str] = []

    def of(self, secret: str, key: str) -> str | None:
        """Return a key's value; None when nobody gives one, or when it cannot be known before a restore."""
        place = (secret, key)
        if place not in self._found:
            self._found[place] = self._value(place)
        return self._found[place]

    def refuse(self) -> None:
        """Raise ConfigurationError for all values that nobody gives."""
        if self._not_given:
            raise ConfigurationError(
                f"{', '.join('.'.join(place) for place in self._not_given)} would get a development default, which "
                "everyone knows, on AWS itself: nothing generates it",
                hint=f"set {' and '.join(override_name(key) for _secret, key in self._not_given)}, "
                "or pass --allow-development-defaults",
            )
        if self._without_source:
            raise ConfigurationError("; ".join(self._without_source))

    def _value(self, place: Place) -> str | None:
        rules, (secret, key) = self._rules, place
        entry = self._entries[secret]
        current = entry.value(key)
        if secret not in rules.selected:
            return current
        if entry.state != "deleted":
            rules.first.setdefault(place, current)
        override = rules.overrides.get(place)
        if override is not None:
            return override
        generator = rules.generator(rules.catalogue.key(place))
        if generator is not None and generator.sources:
            return self._made_of_others(place, generator)
        if current is not None and not self._rotates(place, generator, current):
            return current
        if generator is None:
            if entry.state != "deleted":
                self._not_given.append(place)
            return None
        return self._new(place, generator)

    def _made_of_others(self, place: Place, generator: Generator) -> str | None:
        missing = [source for source in generator.sources if self.of(*source) is None]
        if not missing:
            return generator.generate(lambda secret, key: self.of(secret, key) or "")
        for source in missing:
            if source[0] not in self._rules.selected:
                self._without_source.append(
                    f"{'.'.join(place)} is made of {'.'.join(source)}, which has no value and is not seeded here"
                )
        return None

    def _rotates(self, place: Place, generator: Generator | None, current: str) -> bool:
        rules = self._rules
        if place not in rules.rotating or (generator is not None and not generator.rotates):
            return False
        # Another value by now: another seeder has rotated it.
        return current == rules.first[place]

    def _new(self, place: Place, generator: Generator) -> str:
        """Return the default or a generated value; the one of the round before, if there was any."""
        rules = self._rules
        if place not in rules.made:
            rules.made[place] = (
                generator.generate(lambda secret, key: self.of(secret, key) or "")
                if rules.generating and generator is rules.catalogue.key(place).generate
                else generator.local(*place, lambda secret, key: self.of(secret, key) or "")
            )
        return rules.made[place]
