"""What serve refuses before it looks at a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.serving.options import ServeOptions
from gpt_oss_mxfp4.serving.run import _serve


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "--model-name: must not be empty"),
        ({"name": " "}, "--model-name: must not be empty"),
        ({"port": 9, "metrics_port": 9}, "--metrics-port: must be another than --port, 9"),
        (
            {"precompiled": Path("/nowhere")},
            "--precompiled: /nowhere must be a folder that compile has written",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    nothing: Any = None
    with pytest.raises(Refused) as refused:
        _serve(ServeOptions(**options), nothing, nothing)
    assert str(refused.value) == message
