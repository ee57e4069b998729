"""Folders whose sources are not in the key of compiled graphs: nothing that builds graphs may use them."""

from __future__ import annotations

import re
from pathlib import Path

import gpt_oss_mxfp4
from gpt_oss_mxfp4.ops.library import OUTSIDE_GRAPHS

PACKAGE = Path(gpt_oss_mxfp4.__file__).parent


def test_no_source_outside_of_them_imports_them_but_two_that_make_no_graph_of_it() -> None:
    """The command's entry, and the architecture's list of parts, of which the tokenizer is one."""
    pattern = re.compile(rf"gpt_oss_mxfp4\.({'|'.join(OUTSIDE_GRAPHS)})\b|import cli\b")
    users = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.relative_to(PACKAGE).parts[0] not in OUTSIDE_GRAPHS
        and pattern.search(file.read_text())
    ]
    assert sorted(users) == ["__main__.py", "arch.py"]
    assert all((PACKAGE / folder).is_dir() for folder in OUTSIDE_GRAPHS)
