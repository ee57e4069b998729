"""Asynchronous copies into shared memory: under way until their turn comes, in any order.

A warp's `cp.async` may overtake one another, but not an arrival or the end of a group behind them; bulk copies overtake
everything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import numpy as np

Action = Callable[[], None]


class Copies:
    """What a block has under way.

    Args:
        rng: picks what comes next.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._bulk: list[Action] = []
        self._warps: dict[int, deque[tuple[str, Action]]] = {}
        self._groups: Counter[int] = Counter()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._bulk and not any(self._warps.values())

    def add_bulk(self, copy: Action) -> None:
        """Takes a bulk copy."""
        self._bulk.append(copy)

    def add(self, warp: int, copy: Action) -> None:
        """Takes a warp's copy."""
        self._warps.setdefault(warp, deque()).append(("copy", copy))

    def add_behind(self, warp: int, action: Action) -> None:
        """Takes what is to happen when all of a warp's copies before it are done."""
        self._warps.setdefault(warp, deque()).append(("behind", action))

    def commit(self, warp: int) -> None:
        """Ends a group of a warp's copies."""
        self._groups[warp] += 1
        self.add_behind(warp, lambda: self._groups.subtract([warp]))

    def groups(self, warp: int) -> int:
        """Gives how many of a warp's groups are under way."""
        return self._groups[warp]

    def finish_one(self) -> None:
        """Finishes something that may be finished now."""
        busy = [queue for queue in self._warps.values() if queue]
        choice = int(self._rng.integers(len(self._bulk) + len(busy)))
        if choice < len(self._bulk):
            self._bulk.pop(choice)()
        else:
            self._finish(busy[choice - len(self._bulk)])

    def _finish(self, queue: deque[tuple[str, Action]]) -> None:
        free = 0
        while free < len(queue) and queue[free][0] == "copy":
            free += 1
        at = int(self._rng.integers(free)) if free else 0
        _, action = queue[at]
        del queue[at]
        action()
