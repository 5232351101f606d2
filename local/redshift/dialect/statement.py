"""A statement under translation: its tokens, and what is to stand in their places."""

from __future__ import annotations

from collections.abc import Iterable

from local.redshift.dialect.lexer import Token
from local.redshift.dialect.words import words

_CLAUSES = words("order limit offset union intersect except minus for fetch")


class Statement:
    """Tokens of one statement. Rules change tokens; `render` gives the text with all changes made so far."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.whole: str | None = None
        """What the statement becomes as a whole, when no token of it stays."""
        self._new: dict[int, str] = {}
        self._before: dict[int, str] = {}
        self._after: dict[int, str] = {}
        self.closes: dict[int, int] = {}
        self.parent: list[int] = []
        """For each token the open bracket around it, -1 outside of all."""
        self._words = [token.word for token in tokens]
        self._places: dict[str, list[int]] = {}
        self._pair()

    def _pair(self) -> None:
        """Find the closing bracket of each opening one."""
        stack: list[int] = []
        for index, token in enumerate(self.tokens):
            if self._words[index] or token.kind in ("op", "temp"):
                key = self._words[index] or (token.text if token.kind == "op" else "#")
                self._places.setdefault(key, []).append(index)
            if token.text in (")", "]") and token.kind == "op" and stack:
                self.closes[stack.pop()] = index
            self.parent.append(stack[-1] if stack else -1)
            if token.text in ("(", "[") and token.kind == "op":
                stack.append(index)

    def __len__(self) -> int:
        return len(self.tokens)

    def word(self, index: int) -> str:
        """Return the word at the place in lower case, empty when there is none."""
        return self._words[index] if 0 <= index < len(self._words) else ""

    def places(self, wanted: Iterable[str]) -> list[int]:
        """Return where these words and operators stand, in order; `#` stands for all temporary names."""
        return sorted(place for one in wanted for place in self._places.get(one, ()))

    def op(self, index: int) -> str:
        """Return the operator or bracket at the place, empty when there is none."""
        if 0 <= index < len(self.tokens) and self.tokens[index].kind == "op":
            return self.tokens[index].text
        return ""

    def kind(self, index: int) -> str:
        """Return the kind of token at the place, empty when there is none."""
        return self.tokens[index].kind if 0 <= index < len(self.tokens) else ""

    def words(self, *expected: str, at: int = 0) -> bool:
        """Return whether these words stand at the place."""
        return all(self.word(at + offset) == word for offset, word in enumerate(expected))

    def find(self, *expected: str, start: int = 0, end: int | None = None, parent: int | None = None) -> int:
        """Return the first place of these words in a row, within one bracket if `parent` is given; -1 for none."""
        for index in self._places.get(expected[0], ()):
            within = start <= index and (end is None or index < end)
            if within and self.words(*expected, at=index) and (parent is None or self.parent[index] == parent):
                return index
        return -1

    def is_name(self, index: int) -> bool:
        """Return whether a word or a quoted name stands at the place."""
        return self.kind(index) in ("word", "quoted", "temp")

    def name_end(self, index: int) -> int:
        """Return the place behind a name with dots in it that begins at `index`."""
        while self.is_name(index) and self.op(index + 1) == "." and self.is_name(index + 2):
            index += 2
        return index + 1

    def arguments(self, opening: int) -> list[tuple[int, int]]:
        """Return the ranges of tokens between the commas of a bracket; none when it is empty."""
        closing = self.closes.get(opening)
        if closing is None or closing == opening + 1:
            return []
        cuts = [
            index for index in range(opening + 1, closing) if self.op(index) == "," and self.parent[index] == opening
        ]
        starts, ends = [opening + 1, *(cut + 1 for cut in cuts)], [*cuts, closing]
        return list(zip(starts, ends, strict=True))

    def query_start(self, index: int) -> int:
        """Return the place of the SELECT whose clause the token at `index` begins; -1 when there is none."""
        for place in range(index - 1, -1, -1):
            if self.parent[place] == self.parent[index] and self.word(place) == "select":
                return place
        return -1

    def clause_end(self, index: int, stops: frozenset[str] = _CLAUSES) -> int:
        """Return the place where the clause that begins at `index` ends: next clause, bracket or end."""
        last = self.closes.get(self.parent[index], len(self))
        for place in range(index + 1, last):
            if self.parent[place] == self.parent[index] and self.word(place) in stops:
                return place
        return last

    # Changes

    def replace(self, index: int, text: str) -> None:
        """Let another text stand in a token's place."""
        self._new[index] = text

    def drop(self, start: int, end: int) -> None:
        """Let the tokens of a range vanish."""
        for index in range(start, end):
            self._new[index] = ""
            self._before.pop(index, None)
            self._after.pop(index, None)

    def before(self, index: int, text: str) -> None:
        """Put a text in front of a token, in front of what was put there earlier."""
        self._before[index] = text + self._before.get(index, "")

    def after(self, index: int, text: str) -> None:
        """Put a text behind a token, behind what was put there earlier."""
        self._after[index] = self._after.get(index, "") + text

    @property
    def changed(self) -> bool:
        """Whether anything is to change."""
        return self.whole is not None or bool(self._new or self._before or self._after)

    def render(self, start: int = 0, end: int | None = None) -> str:
        """Return the text of a range of tokens with its changes, spaces and comments between them kept."""
        end = len(self) if end is None else end
        if start >= end:
            return ""
        pieces = []
        for index in range(start, end):
            token = self.tokens[index]
            if index > start:
                pieces.append(self.text[self.tokens[index - 1].end : token.start])
            pieces += [self._before.get(index, ""), self._new.get(index, token.text), self._after.get(index, "")]
        return "".join(pieces)

    def source(self, start: int, end: int) -> str:
        """Return the client's own text of a range of tokens."""
        return self.text[self.tokens[start].start : self.tokens[end - 1].end] if start < end else ""
