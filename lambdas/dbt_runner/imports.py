"""dbt, imported for a cold start: what a command does not need is left until something asks for it.

Nothing is replaced by a dummy. A module of LATE is there with its name and its place, and its code runs when a name is
asked for that it does not have yet; mashumaro writes a class's methods when one of them is called, not all of them at
import. What is used works as before, and what is not used costs nothing. The seconds are in docs/adr/0010-layers.md.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.machinery
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Late:
    """A module that is loaded when it is needed."""

    reason: str
    calls: tuple[str, ...] = ()
    """Names that other modules import from it, and only ever call."""


_BY_NAME = "dbt takes a few functions, which NETWORKX has; networkx by itself loads 280 modules to have them all"
LATE: Mapping[str, Late] = {
    # In the order of networkx's own __init__.
    "networkx.generators": Late(_BY_NAME),
    "networkx.readwrite": Late(_BY_NAME),
    "networkx.algorithms": Late(_BY_NAME),
    "networkx.linalg": Late(_BY_NAME),
    "networkx.drawing": Late(_BY_NAME),
    "dbt.contracts.graph.semantic_manifest": Late(
        "validates semantic models, with pydantic: for a command that checks or writes a manifest",
        ("SemanticManifest",),
    ),
    "scramp": Late("signs in by SCRAM, with a library for certificates: Redshift asks for a digest", ("ScramClient",)),
}
# Where the functions are that dbt takes from networkx, and those that these take.
NETWORKX: Mapping[str, str] = {
    "bfs_edges": "networkx.algorithms.traversal.breadth_first_search",
    "connected_components": "networkx.algorithms.components.connected",
    "descendants": "networkx.algorithms.dag",
    "find_cycle": "networkx.algorithms.cycles",
    "topological_generations": "networkx.algorithms.dag",
    "topological_sort": "networkx.algorithms.dag",
    "traversal": "networkx.algorithms.traversal",
}
APPLICATION_NAME = "goldlake"

_loading = threading.Lock()


def load() -> None:
    """Import dbt and its adapter; a second call does nothing, and a dbt that is imported already stays as it is.

    Process locks must have been replaced before.
    """
    with _loading:
        if "dbt.cli.main" in sys.modules:
            return
        find_late()
        _write_methods_late()
        _leave_out_defaults()
        # What modules make stays, so collecting in between finds nothing. Frozen, it is left out of later collections.
        collecting = gc.isenabled()
        gc.disable()
        try:
            importlib.import_module("dbt.cli.main")
            importlib.import_module("dbt.adapters.redshift")
        finally:
            if collecting:
                gc.enable()
        gc.freeze()


class Import:
    """An import of dbt in a thread."""

    def __init__(self) -> None:
        """Nothing is imported yet."""
        self.seconds = 0.0
        self.problem: Exception | None = None

    def run(self) -> None:
        """Import dbt, and keep how long it took and what went wrong."""
        began = time.monotonic()
        try:
            load()
        except Exception as error:
            self.problem = error
        self.seconds = time.monotonic() - began


@contextlib.contextmanager
def loading() -> Iterator[Import]:
    """Import dbt while the block waits for the network; behind the block dbt is there.

    The driver comes first: two threads inside one circle of imports could see half a module.
    """
    find_late()
    _name_connections()
    found = Import()
    thread = threading.Thread(target=found.run, name="import of dbt")
    thread.start()
    try:
        yield found
    finally:
        thread.join()
    if found.problem:
        raise found.problem


# --- modules ---


@functools.cache
def find_late() -> None:
    """Have the modules of LATE loaded late, as far as they are not imported yet."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of LATE where they are, with a loader that waits; and networkx, which has to ask for them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in LATE and name != "networkx":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LateLoader(spec.loader, LATE[name].calls) if name in LATE else _Networkx(spec.loader)
        return spec


class LateLoader(Loader):
    """Runs a module's code when a name is asked for that the module does not have."""

    def __init__(self, real: Loader, calls: Sequence[str]) -> None:
        """Take the loader of the module's code, and the names that are there before it has run."""
        self._real, self._calls = real, calls
        self._lock = threading.RLock()
        self.waits = True

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with what leads to its code."""

        def missing(name: str) -> Any:
            # Those are asked for by the import system, and are there or not without the code.
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            self.complete(module)
            return getattr(module, name)

        calls = {name: self._call(module, name) for name in self._calls}
        # `from … import *` takes what is in __all__.
        vars(module).update(__getattr__=missing, __all__=list(calls), **calls)

    def _call(self, module: ModuleType, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.complete(module)
            return getattr(module, name)(*arguments, **options)

        return call

    def complete(self, module: ModuleType) -> None:
        """Run the module's code, once."""
        with self._lock:
            if self.waits:
                self.waits = False
                for name in ("__getattr__", "__all__", *self._calls):
                    del vars(module)[name]
                self._real.exec_module(module)


class _Networkx(Loader):
    """Loads networkx, which then finds the functions of NETWORKX where they are, and loads all of it for any other."""

    def __init__(self, real: Loader) -> None:
        self._real = real

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        refuse: Callable[[str], Any] = vars(module)["__getattr__"]

        def found(name: str) -> Any:
            if name.startswith("__"):
                return refuse(name)
            if name in NETWORKX:
                place = importlib.import_module(NETWORKX[name])
                value = place if place.__name__.endswith(f".{name}") else getattr(place, name)
                setattr(module, name, value)
                return value
            for package in (late for late in LATE if late.startswith("networkx.")):
                part = sys.modules[package]
                if isinstance(part.__loader__, LateLoader):
                    part.__loader__.complete(part)
                public = getattr(part, "__all__", [key for key in vars(part) if not key.startswith("_")])
                vars(module).update({key: getattr(part, key) for key in public})
            vars(module)["__getattr__"] = refuse
            return getattr(module, name)

        vars(module)["__getattr__"] = found


# --- mashumaro, which writes the methods that read and write dbt's dataclasses ---


def _write_methods_late() -> None:
    """Have from_dict, to_dict and the like of a dataclass written when they are first called.

    Importing dbt makes mashumaro prepare 1,250 of them; `debug` calls a few dozen. Its lazy_compilation, which dbt has
    turned on, leaves the larger part to the import.
    """
    from mashumaro.core.meta.code.builder import CodeBuilder
    from mashumaro.core.meta.mixin import compile_mixin_packer, compile_mixin_unpacker
    from mashumaro.mixins.dict import DataClassDictMixin

    def init_subclass(cls: Any, /, **options: Any) -> None:
        super(DataClassDictMixin, cls).__init_subclass__(**options)
        for ancestor in cls.__mro__[-1:0:-1]:
            given = getattr(ancestor, f"_{ancestor.__name__}__mashumaro_builder_params", None)
            if given:
                reads, writes = given["unpacker"], given["packer"]
                name: Any = CodeBuilder.get_unpack_method_name(
                    format_name=reads.get("format_name", "dict"), decoder=reads.get("decoder")
                )
                first = classmethod(_first_call(cls, name, functools.partial(compile_mixin_unpacker, cls, **reads)))
                _set(cls, name, first)
                name = CodeBuilder.get_pack_method_name(
                    format_name=writes.get("format_name", "dict"), encoder=writes.get("encoder")
                )
                _set(cls, name, _first_call(cls, name, functools.partial(compile_mixin_packer, cls, **writes)))

    mixin: Any = DataClassDictMixin
    mixin.__init_subclass__ = classmethod(init_subclass)


def _set(cls: type, name: Any, method: Any) -> None:
    """Set a method by both names that mashumaro gives it."""
    setattr(cls, name, method)
    setattr(cls, name.public, method)


def _first_call(cls: type, name: str, write: Callable[[], None]) -> Callable[..., Any]:
    """Return a method that has the real one written in its place, and calls it."""

    def first(self: Any, *arguments: Any, **options: Any) -> Any:
        before = vars(cls)[name]
        write()
        method = vars(cls)[name]
        # Two threads may have written it; mashumaro writes none when a field's type is not defined.
        if method is before and getattr(before, "__func__", before) is first:
            raise TypeError(f"{cls.__qualname__}.{name}: the type of a field is not defined")
        bound = method.__get__(None, self) if isinstance(method, classmethod) else method.__get__(self)
        return bound(*arguments, **options)

    return first


def _leave_out_defaults() -> None:
    """Leave defaults out of the JSON schemas that dbt checks its files with, for a check does not look at them.

    mashumaro makes a class for each default, and writes its methods, to have the default in JSON's form.
    """
    from mashumaro.jsonschema import schema

    of_schema: Any = schema
    of_schema._default = lambda *_given: MISSING


# --- the driver ---


@functools.cache
def _name_connections() -> None:
    """Give each connection a name; the driver looks for its caller's otherwise, and reads the source of all callers."""
    from redshift_connector.core import Connection

    driver: Any = Connection
    original = driver.__init__

    @functools.wraps(original)
    def named(self: Any, *arguments: Any, **options: Any) -> None:
        options["application_name"] = options.get("application_name") or APPLICATION_NAME
        original(self, *arguments, **options)

    driver.__init__ = named
