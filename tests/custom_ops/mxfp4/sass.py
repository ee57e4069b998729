"""What nvdisasm tells of a kernel: instructions, the ways through them, and what they write.

Source: the CUDA Binary Utilities manual for the instruction names; how operands are ordered was read off its output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?)(U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_\w+):", re.MULTILINE)
_TARGET = re.compile(r"`\((\.L_\w+)\)")
_REGISTER = re.compile(r"^R(\d+)")
_WRITES_NONE = (
    "ST",
    "SYNCS",
    "UBLKCP",
    "BAR",
    "BRA",
    "EXIT",
    "RED",
    "CCTL",
    "FENCE",
    "MEMBAR",
    "LDGSTS",
    "LDGDEPBAR",
)
"""No register of a lane; the beginnings of names."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Args:
        name: with its modifiers.
        operands: in order.
        conditional: whether a predicate guards it.
        target: place of the instruction that it may jump to, or None.
    """

    name: str
    operands: tuple[str, ...]
    conditional: bool
    target: int | None

    def written(self) -> range:
        """Gives the registers of a lane that it writes: the first operand's, as many as its width says."""
        if self.name.startswith(_WRITES_NONE) or self.name.startswith("HGMMA"):
            return range(0)
        for operand in self.operands[:2]:
            found = _REGISTER.match(operand)
            if found:
                first = int(found[1])
                return range(first, first + self._width())
            if not re.match(r"^!?U?P", operand):
                break
        return range(0)

    def read(self) -> set[int]:
        """Gives the registers of a lane that it reads, each by its name: of wide operands but addresses the first."""
        others = self.operands[1 if self.written() and _REGISTER.match(self.operands[0]) else 0 :]
        found = re.findall(r"\bR(\d+)(\.64)?", " ".join(others))
        return {int(first) + i for first, wide in found for i in range(2 if wide else 1)}

    def _width(self) -> int:
        if ".128" in self.name:
            return 4
        return 2 if ".64" in self.name or ".WIDE" in self.name else 1

    def fragment(self) -> frozenset[int]:
        """Gives the registers of A that a product reads after it was started."""
        found = _REGISTER.match(self.operands[1])
        if not found:
            raise ValueError(f"A must be in registers, got {self}")
        return frozenset(range(int(found[1]), int(found[1]) + 4))


def parse_sass(text: str) -> list[Instruction]:
    """Parses one function.

    Args:
        text: of ``nvdisasm -c``.
    """
    labels: dict[str, int] = {}
    lines: list[re.Match[str]] = []
    for line in text.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(lines)
        elif found := _LINE.search(line):
            lines.append(found)
    instructions = []
    for found in lines:
        name, operands = found[4], found[5]
        target = _TARGET.search(operands) if name.startswith("BRA") else None
        instructions.append(
            Instruction(
                name,
                tuple(part.strip() for part in operands.split(",")),
                bool(found[3]),
                labels[target[1]] if target else None,
            )
        )
    return instructions


def successors(instructions: list[Instruction], place: int) -> Iterator[int]:
    """Gives where control may go next."""
    instruction = instructions[place]
    ends = instruction.name.startswith(("EXIT", "BRA")) and not instruction.conditional
    if instruction.target is not None:
        yield instruction.target
    # A uniform branch names its condition among the operands.
    if (not ends or len(instruction.operands) > 1) and place + 1 < len(instructions):
        yield place + 1


def early_writes(instructions: list[Instruction]) -> list[str]:
    """Finds writes to registers that a product in flight still reads, on any way through the function.

    A product is in flight from its start until a wait allows fewer groups than were committed since.
    """
    found = set()
    seen: set[tuple[int, tuple[frozenset[int], ...]]] = set()
    todo: list[tuple[int, tuple[frozenset[int], ...]]] = [(0, ())]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        place, flying = state
        instruction = instructions[place]
        # The last of `flying` is the group that is not committed yet, while it has products.
        if instruction.name.startswith("HGMMA"):
            opened = flying and flying[-1] and flying[-1] >= {-1}
            group = (flying[-1] if opened else frozenset({-1})) | instruction.fragment()
            flying = (*flying[:-1], group) if opened else (*flying, group)
            if instruction.operands[-1].startswith("gsb"):
                flying = (*flying[:-1], group - {-1})
        elif instruction.name.startswith("WARPGROUP.DEPBAR"):
            allowed = int(instruction.operands[-1], 16)
            flying = flying[max(0, len(flying) - allowed) :]
        else:
            for register in instruction.written():
                if any(register in group for group in flying):
                    found.add(f"{instruction.name} {', '.join(instruction.operands)}")
        todo += [(place, flying) for place in successors(instructions, place)]
    return sorted(found)


def memory_waits(instructions: list[Instruction]) -> int:
    """Counts how often a run of instructions, branches not taken, waits for what it loads from global memory.

    What was loaded together is waited for once, where the first of it is read.
    """
    waits, coming = 0, set[int]()
    for instruction in instructions:
        if coming & instruction.read():
            waits, coming = waits + 1, set()
        if instruction.name.startswith("LDG."):
            coming |= set(instruction.written())
    return waits


def loop_with(
    instructions: list[Instruction], names: tuple[str, ...], count: int | None = None
) -> tuple[int, int]:
    """Finds the smallest loop that has all instructions of some names in it.

    Args:
        instructions: of the function.
        names: what they begin with.
        count: how many of them a way around has, if the loop need not have all.

    Returns:
        Instructions of the shortest way once around that has the most of them, and how many of them that has.
    """
    before: dict[int, list[int]] = {}
    for place in range(len(instructions)):
        for following in successors(instructions, place):
            before.setdefault(following, []).append(place)
    wanted = {i for i, x in enumerate(instructions) if x.name.startswith(names)}
    loops = [
        (head, _body(before, head, place))
        for place, x in enumerate(instructions)
        if (head := x.target) is not None and head <= place
    ]
    for head, body in sorted(loops, key=lambda loop: len(loop[1])):
        if (wanted & body if count else wanted <= body) and (
            found := _once_around(instructions, head, body, wanted)
        )[1] == (count or found[1]):
            return found
    raise ValueError(f"no loop has {names}")


def _once_around(
    instructions: list[Instruction], head: int, body: set[int], wanted: set[int]
) -> tuple[int, int]:
    """Gives a loop's shortest way around with the most wanted instructions, and how many it has."""
    nothing: frozenset[int] = frozenset()
    steps = {(head, nothing): 0}
    todo = [(head, nothing)]
    around: dict[int, int] = {}
    for place, passed in todo:  # grows while it is walked: nearest first
        count = steps[place, passed] + 1
        now = passed | ({place} & wanted)  # each once, as loops within may have them, too
        for following in successors(instructions, place):
            if following == head:
                around.setdefault(len(now), count)
            elif following in body and (following, now) not in steps:
                steps[following, now] = count
                todo.append((following, now))
    most = max(around)
    return around[most], most


def _body(before: dict[int, list[int]], head: int, end: int) -> set[int]:
    """Gives a natural loop: what leads to its end without going through its head."""
    body, todo = {head, end}, [end]
    while todo:
        for place in before.get(todo.pop(), []):
            if place not in body:
                body.add(place)
                todo.append(place)
    return body


def assert_nothing_early(instructions: list[Instruction], *, constants: int = 0) -> None:
    """Checks that nothing is read or written before the wait for the kernel before, but what no kernel writes.

    What PTX calls memory that nobody writes (`.nc`, here CONSTANT), the assembler may read before.

    Args:
        instructions: of the function.
        constants: how many loads there are of weights, or biases, which are older than any kernel of a step.
    """
    names = [x.name for x in instructions]
    assert sum("CONSTANT" in x for x in names) == constants
    reaches = ("LDG", "STG", "RED", "ATOM", "UBLKCP")
    accesses = [i for i, x in enumerate(names) if x.startswith(reaches) and "CONSTANT" not in x]
    assert names.index("ACQBULK") < min(accesses)
