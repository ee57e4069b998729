"""PTX text to instructions."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

_LABEL = re.compile(r"^(\$?[\w$]+):$")
_GUARD = re.compile(r"^@(!?)(%?[\w$]+)\s+(.*)$", re.DOTALL)
_NAME = re.compile(r"%?[A-Za-z_$][\w$]*")

WHOLE_WARP = (
    "wgmma",
    "mma.sync",
    "ldmatrix.sync",
    "setmaxnreg",
    "bar.sync",
    "barrier.sync",
    "bar.warp.sync",
    "shfl.sync",
    "redux.sync",
    "barrier.cluster",
    "movmatrix.sync",
)
"""What all lanes of a warp must come to together."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Args:
        opcode: with all its modifiers, as in ``ld.shared.v4.b32``.
        operands: as text, vectors and addresses in their brackets.
        guard: a predicate register, or None.
        negated: whether the guard must be false.
    """

    opcode: str
    operands: tuple[str, ...]
    guard: str | None = None
    negated: bool = False

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        """The opcode's parts: ``("ld", "shared", "v4", "b32")``."""
        return tuple(self.opcode.split("."))

    @functools.cached_property
    def for_whole_warp(self) -> bool:
        """Whether all lanes of a warp must come to it together."""
        return self.opcode.startswith(WHOLE_WARP)

    def __str__(self) -> str:
        guard = f"@{'!' * self.negated}{self.guard} " if self.guard else ""
        return f"{guard}{self.opcode} {', '.join(self.operands)}"


@dataclass
class Program:
    """An entry function.

    Args:
        name: of the entry.
        parameters: bytes of each, in order.
        instructions: in order.
        labels: place of the instruction behind each.
        shared: place of each variable in shared memory.
        shared_bytes: bytes of all that are sized.
        threads: of a block, at most; 0 where that is not said.
    """

    name: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0
    threads: int = 0


SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


def parse_program(ptx: str) -> Program:
    """Parses a module with one entry.

    Args:
        ptx: the module.

    Raises:
        ValueError: no entry, or more than one.
    """
    program = parse_head(ptx)
    text = _without_comments(ptx)
    begin = re.search(r"\.entry[^{]*\{", text)
    assert begin
    _declare_shared(text, program)
    _parse_body(text[begin.end() : _closing_brace(text, begin.end())], program)
    return program


def _without_comments(ptx: str) -> str:
    return re.sub(r"//[^\n]*", "", ptx)


def parse_head(ptx: str) -> Program:
    """Parses what a launch has to know of a module with one entry: its name, parameters and threads.

    Args:
        ptx: the module.

    Raises:
        ValueError: no entry, or more than one.
    """
    text = _without_comments(ptx)
    entries = re.findall(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{]*\{", text)
    if len(entries) != 1:
        raise ValueError(f"a module must have one entry, got {len(entries)}")
    program = Program(name=entries[0][0])
    for declaration in entries[0][1].split(","):
        found = re.search(
            r"\.([busf])(\d+)\s+(?:\.ptr\s+)?(?:\.align\s+\d+\s+)?([\w$]+)(?:\[(\d+)\])?$",
            declaration.strip(),
        )
        if found:
            program.parameters[found[3]] = SIZES[found[2]] * int(found[4] or 1)
    if threads := re.search(r"\.maxntid\s+(\d+)", text):
        program.threads = int(threads[1])
    return program


def _closing_brace(text: str, begin: int) -> int:
    depth = 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError("the entry's body has no end")


def _declare_shared(text: str, program: Program) -> None:
    """Places variables one after the other; all that have no size begin at the end, 1024-byte aligned."""
    pattern = r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.b(\d+)\s+([\w$]+)\[(\d*)\]"
    unsized = []
    for align, bits, name, count in re.findall(pattern, text):
        if not count:
            unsized.append(name)
            continue
        alignment = int(align or 1)
        program.shared[name] = -(-program.shared_bytes // alignment) * alignment
        program.shared_bytes = program.shared[name] + SIZES[bits] * int(count)
    for name in unsized:
        program.shared[name] = -(-program.shared_bytes // 1024) * 1024


def _statements(body: str) -> list[str]:
    """Cuts a body at semicolons, colons of labels, and braces that are scopes and not vectors."""
    statements, current = [], ""
    for character in body:
        if character == "{" and not current.strip():
            statements.append("{")
            current = ""
        elif character == "}" and "{" not in current:
            statements.append("}")
            current = ""
        elif character == ";":
            statements.append(" ".join(current.split()))
            current = ""
        elif character == ":" and _LABEL.match(current.strip() + ":"):
            statements.append(current.strip() + ":")
            current = ""
        else:
            current += character
    return statements


def _parse_body(body: str, program: Program) -> None:
    """Renames what inline assembly declares in a scope of its own, as its name may be declared again elsewhere."""
    scopes: list[dict[str, str]] = [{}]
    statements = _statements(body)
    for at, statement in enumerate(statements):
        if statement == "{":
            depth, end = 1, at + 1
            while depth:
                depth += {"{": 1, "}": -1}.get(statements[end], 0)
                end += 1
            names = [name for inner in statements[at + 1 : end - 1] for name in _declared(inner)]
            scopes.append({**scopes[-1], **{name: f"{name}${at}" for name in names}})
        elif statement == "}":
            scopes.pop()
        elif label := _LABEL.match(statement):
            name = scopes[-1].get(label[1], label[1])
            program.labels[name] = len(program.instructions)
        elif statement and not statement.startswith("."):
            renamed = _NAME.sub(lambda m: scopes[-1].get(m[0], m[0]), statement)
            program.instructions.append(_parse_instruction(renamed))


def _declared(statement: str) -> list[str]:
    if label := _LABEL.match(statement):
        return [label[1]]
    if statement.startswith(".reg"):
        return re.findall(r"%?[A-Za-z_$][\w$]*", statement.split(None, 2)[2])
    return []


def _parse_instruction(statement: str) -> Instruction:
    guard, negated = None, False
    if found := _GUARD.match(statement):
        negated, guard, statement = bool(found[1]), found[2], found[3]
    opcode, _, rest = statement.partition(" ")
    return Instruction(opcode, tuple(split_operands(rest)), guard, negated)


def split_operands(text: str) -> list[str]:
    """Cuts at commas that are in no brackets."""
    operands, depth, current = [], 0, ""
    for character in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            operands.append(current.strip())
            current = ""
        else:
            current += character
    return [*operands, current.strip()] if current.strip() else operands
