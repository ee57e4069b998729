"""The demo's tokenizer, made once."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from demo.tokenizer import make_tokenizer

    return make_tokenizer()
