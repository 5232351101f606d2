"""Rows and columns of a Parquet file by its footer, with no engine: the first fields of its metadata are enough.

A check reads hundreds of footers, and opening an engine for each costs more than all its requests.

Sources: the Parquet format (apache/parquet-format, parquet.thrift: FileMetaData and SchemaElement), and Thrift's
compact protocol (apache/thrift, doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import FailedError

# Real metadata nests a handful of levels; the bytes of a broken file may claim any number.
MAX_DEPTH = 32
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(1, 14)
_FIXED = {_BYTE: 1, _DOUBLE: 8, _UUID: 16}


@dataclass(frozen=True)
class Footer:
    """What a footer tells: the file's rows, and the names of its top-level columns as they are written."""

    rows: int
    columns: tuple[str, ...]


def parse(metadata: bytes, name: str) -> Footer:
    """Return rows and columns of serialised FileMetaData; what follows it is not looked at.

    Raises FailedError with `name` for bytes that are no such metadata.
    """
    try:
        return _parse(_Compact(metadata))
    except (IndexError, ValueError, UnicodeDecodeError) as exc:
        raise FailedError(f"{name} is not a readable Parquet file: its footer is broken ({exc})") from exc


def _parse(data: _Compact) -> Footer:
    rows: int | None = None
    schema: list[tuple[str, int]] | None = None
    for number, kind in data.fields():
        if (number, kind) == (2, _LIST):
            schema = [_element(data) for _ in data.items(_STRUCT)]
        elif (number, kind) == (3, _I64):
            rows = data.signed()
        else:
            data.skip(kind)
        if rows is not None and schema is not None:
            break
    if rows is None or rows < 0 or not schema:
        raise ValueError("no row count or no schema")
    return Footer(rows, tuple(_top_level(schema)))


def _element(data: _Compact) -> tuple[str, int]:
    """Return name and number of children of a SchemaElement."""
    name, children = "", 0
    for number, kind in data.fields():
        if (number, kind) == (4, _BINARY):
            name = data.binary().decode()
        elif (number, kind) == (5, _I32):
            children = data.signed()
        else:
            data.skip(kind)
    return name, children


def _top_level(schema: list[tuple[str, int]]) -> Iterator[str]:
    """Yield the children of the root. The schema is a tree written depth first, each node before its children."""
    at = 1
    for _ in range(schema[0][1]):
        yield schema[at][0]
        open_nodes = 1
        while open_nodes:
            open_nodes += schema[at][1] - 1
            at += 1


class _Compact:
    """A reader of Thrift's compact protocol. Bytes that end too early raise IndexError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a struct; the caller reads or skips its value before the next."""
        number = 0
        while (header := self._byte()) != 0:
            delta = header >> 4
            number = number + delta if delta else self.signed()
            yield number, header & 0x0F

    def items(self, kind: int) -> range:
        """Return a range of a list's length. Raises ValueError when its elements are of another type."""
        found, size = self._list_header()
        if found != kind:
            raise ValueError(f"a list of type {found}, not {kind}")
        return range(size)

    def signed(self) -> int:
        """Return a zigzag number."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def binary(self) -> bytes:
        """Return bytes with their length before them."""
        return self._take(self._varint())

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value. Raises ValueError for a type that is none, and for values nested without end."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if kind in (_TRUE, _FALSE):
            return
        if kind in _FIXED:
            self._take(_FIXED[kind])
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BINARY:
            self.binary()
        elif kind in (_LIST, _SET):
            element, size = self._list_header()
            self._skip_items([element], size, depth)
        elif kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            self._skip_items([kinds >> 4, kinds & 0x0F], size, depth)
        elif kind == _STRUCT:
            for _, field in self.fields():
                self.skip(field, depth + 1)
        else:
            raise ValueError(f"type {kind} is unknown")

    def _skip_items(self, kinds: list[int], size: int, depth: int) -> None:
        for _ in range(size):
            for kind in kinds:
                # In a container a boolean is a byte; as a field it is the type itself.
                self.skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth + 1)

    def _list_header(self) -> tuple[int, int]:
        header = self._byte()
        size = header >> 4
        return header & 0x0F, self._varint() if size == 15 else size

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number longer than 64 bits")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise IndexError("it ends too early")
        self._at += length
        return taken
