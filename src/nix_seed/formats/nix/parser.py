"""Reads a Nix expression into ``syntax``: recursive descent over the tokens."""

from __future__ import annotations

import json

from nix_seed.core.errors import InputError
from nix_seed.formats.nix.syntax import (
    AttrSet,
    Binding,
    Call,
    Formal,
    Lambda,
    Leaf,
    Node,
    Operation,
    Part,
    Scope,
    Select,
    Token,
    tokenize,
)

_BINARY = frozenset({"==", "!=", "<=", ">=", "&&", "||", "->", "//", "|>", "<|", *"+-*/<>", "++"})
_LITERALS = frozenset({"number", "string", "path", "uri"})
_END = Token("op", "", 0, 0)


def parse(source: str) -> Node:
    """Return the expression that *source* is; ``InputError``, with the line, if it is none."""
    parser = _Parser(source)
    try:
        found = parser.expression()
    except RecursionError as error:
        raise InputError("the Nix expression is nested too deeply to be read") from error
    if parser.left:
        raise parser.error("the end of the file is wanted")
    return found


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = tokenize(source)
        self._at = 0

    @property
    def left(self) -> int:
        """How many tokens have not been read."""
        return len(self._tokens) - self._at

    def error(self, wanted: str) -> InputError:
        """Return an error at the next token."""
        token = self._peek()
        line = self._source.count("\n", 0, token.start if self.left else None) + 1
        return InputError(f"line {line}: {wanted}, not {token.text or 'the end'!r}")

    def expression(self) -> Node:
        """``expr_function`` of the grammar."""
        token = self._peek()
        if token.text == "let" and self._peek(1).text != "{":
            return self._let()
        if token.text in ("with", "assert") and token.kind == "keyword":
            return self._guarded()
        if token.text == "if" and token.kind == "keyword":
            return self._condition()
        if self._is_lambda():
            return self._lambda()
        return self._operation()

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else _END

    def _next(self) -> Token:
        token = self._peek()
        if not self.left:
            raise self.error("more is wanted")
        self._at += 1
        return token

    def _is(self, text: str, ahead: int = 0) -> bool:
        token = self._peek(ahead)
        return token.text == text and token.kind in ("op", "keyword")

    def _want(self, text: str) -> Token:
        if not self._is(text):
            raise self.error(f"{text!r} is wanted")
        return self._next()

    def _let(self) -> Node:
        start = self._next().start
        bindings = self._bindings("in")
        self._want("in")
        body = self.expression()
        return Scope(start, body.end, bindings, body)

    def _guarded(self) -> Node:
        start = self._next().start
        self.expression()
        self._want(";")
        body = self.expression()
        return Scope(start, body.end, (), body)

    def _condition(self) -> Node:
        start = self._next().start
        parts = [self.expression()]
        for word in ("then", "else"):
            self._want(word)
            parts.append(self.expression())
        return Operation(start, parts[-1].end, tuple(parts))

    def _is_lambda(self) -> bool:
        if self._peek().kind == "id":
            return self._is(":", 1) or self._is("@", 1)
        return self._is("{") and self._are_formals()

    def _are_formals(self) -> bool:
        """Whether the brace that comes next opens formals: an attribute set may begin alike."""
        if self._is("}", 1):
            return self._is(":", 2) or self._is("@", 2)
        if self._peek(1).kind != "id":
            return self._is("...", 1)
        if self._is("}", 2):
            return self._is(":", 3) or self._is("@", 3)
        return self._is(",", 2) or self._is("?", 2)

    def _lambda(self) -> Lambda:
        start, name = self._peek().start, ""
        formals: tuple[Formal, ...] | None = None
        brace, ellipsis = start, None
        if self._peek().kind == "id":
            name = self._next().text
            if self._is("@"):
                self._next()
                formals, brace, ellipsis = self._formals()
        else:
            formals, brace, ellipsis = self._formals()
            if self._is("@"):
                self._next()
                name = self._identifier()
        self._want(":")
        body = self.expression()
        return Lambda(start, body.end, name, formals, brace, ellipsis, body)

    def _identifier(self) -> str:
        if self._peek().kind != "id":
            raise self.error("a name is wanted")
        return self._next().text

    def _formals(self) -> tuple[tuple[Formal, ...], int, int | None]:
        self._want("{")
        found: list[Formal] = []
        while not self._is("}"):
            if self._is("..."):
                ellipsis = self._next().start
                return tuple(found), self._want("}").start, ellipsis
            token = self._peek()
            name, end = self._identifier(), token.end
            if self._is("?"):
                self._next()
                end = self.expression().end
            found.append(Formal(token.start, end, name))
            if not self._is("}"):
                self._want(",")
        return tuple(found), self._want("}").start, None

    def _operation(self) -> Node:
        operands, operators = [], []
        while True:
            while self._is("!") or self._is("-"):
                self._next()
            operands.append(self._call())
            while self._is("?"):
                self._next()
                self._path()
            if not (self._peek().kind == "op" and self._peek().text in _BINARY):
                break
            operators.append(self._next().text)
        if len(operands) == 1:
            return operands[0]
        return Operation(operands[0].start, operands[-1].end, tuple(operands), tuple(operators))

    def _call(self) -> Node:
        function = self._select()
        arguments = []
        while self._begins_simple():
            arguments.append(self._select())
        if not arguments:
            return function
        return Call(function.start, arguments[-1].end, function, tuple(arguments))

    def _begins_simple(self) -> bool:
        token = self._peek()
        if token.kind in _LITERALS or token.kind == "id":
            return True
        return any(self._is(text) for text in ("(", "[", "{", "rec", "let"))

    def _select(self) -> Node:
        node = self._simple()
        if not self._is("."):
            return node
        self._next()
        path, end = self._path(), self._tokens[self._at - 1].end
        if self._peek().text == "or" and self._peek().kind == "id":
            self._next()
            end = self._select().end
        return Select(node.start, end, node, path)

    def _path(self) -> tuple[Part, ...]:
        parts = [self._part()]
        while self._is("."):
            self._next()
            parts.append(self._part())
        return tuple(parts)

    def _part(self) -> Part:
        token = self._peek()
        if token.kind == "id":
            return Part(token.text, self._next().text)
        if token.kind == "string":
            return Part(_plain(token.text), self._next().text)
        self._want("${")
        self.expression()
        end = self._want("}").end
        return Part("", self._source[token.start : end])

    def _simple(self) -> Node:
        token = self._peek()
        if token.kind == "id":
            self._next()
            return Leaf(token.start, token.end, token.text)
        if token.kind in _LITERALS:
            self._next()
            return Leaf(token.start, token.end)
        if self._is("("):
            return self._parenthesis()
        if self._is("["):
            return self._list()
        if self._is("rec") or self._is("let"):
            self._next()
            return self._attributes(token.start, recursive=True)
        if self._is("{"):
            return self._attributes(token.start, recursive=False)
        raise self.error("a value is wanted")

    def _parenthesis(self) -> Node:
        self._next()
        inner = self.expression()
        self._want(")")
        return inner

    def _list(self) -> Node:
        start, items = self._next().start, []
        while not self._is("]"):
            items.append(self._select())
        return Operation(start, self._next().end, tuple(items))

    def _attributes(self, start: int, *, recursive: bool) -> AttrSet:
        self._want("{")
        bindings = self._bindings("}")
        return AttrSet(start, self._want("}").end, bindings, recursive)

    def _bindings(self, until: str) -> tuple[Binding, ...]:
        found = []
        while not self._is(until):
            found.append(self._inherit() if self._is("inherit") else self._binding())
        return tuple(found)

    def _binding(self) -> Binding:
        start = self._peek().start
        path = self._path()
        self._want("=")
        value = self.expression()
        return Binding(start, self._want(";").end, path, value)

    def _inherit(self) -> Binding:
        start = self._next().start
        if self._is("("):
            self._parenthesis()
        names = []
        while not self._is(";"):
            names.append(self._part())
        return Binding(start, self._next().end, tuple(names), None)


def _plain(text: str) -> str:
    """Return what a quoted name says, empty where it is computed or escaped oddly."""
    if text.startswith("''") or "${" in text:
        return ""
    try:
        return str(json.loads(text))
    except ValueError:
        return ""
