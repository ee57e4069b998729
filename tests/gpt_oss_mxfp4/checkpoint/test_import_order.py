"""The order in which the package's modules stand in its docstring is that of their imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gpt_oss_mxfp4 import checkpoint, config

FILES = {
    "config": Path(config.__file__),
    **{
        path.stem: path
        for path in Path(checkpoint.__file__).parent.glob("*.py")
        if path.stem != "__init__"
    },
}


def imported(file: Path) -> set[str]:
    """Those of the modules that a file imports, wherever in it."""
    tree = ast.walk(ast.parse(file.read_text()))
    names = {node.module or "" for node in tree if isinstance(node, ast.ImportFrom)}
    ours = re.compile(r"gpt_oss_mxfp4\.(?:checkpoint\.)?(\w+)")
    return {match[1] for name in names if (match := ours.fullmatch(name))} & set(FILES)


def test_each_module_imports_only_what_stands_left_of_it() -> None:
    order = (checkpoint.__doc__ or "").split("\n\n")[1].partition(":")[0]
    left: set[str] = set()
    for group in order.split("->"):
        names = set(re.findall(r"\w+", group))
        for name in names:
            assert imported(FILES[name]) <= left, name
        assert not names & left
        left |= names
    assert left == set(FILES)
