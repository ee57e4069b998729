"""What ``serve`` is asked for; imported without MAX, which takes seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gpt_oss_mxfp4.options import EngineOptions

DEMO_NAME = "gpt-oss-mxfp4-demo"
"""What the demo model is called in requests."""

SERVED_BATCH_SIZE = 4
"""Sequences at once on a CPU, each with a KV cache of the whole length: 0.4 GB for 20b's 8192 tokens."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions(EngineOptions):
    """What ``serve`` is asked for; each field is the argument of the same name.

    Args:
        host: address to listen on.
        port: to listen on; 0 for any that is free.
        metrics_port: of MAX's Prometheus metrics; None for the next after ``port``.
        name: what requests call the model; None for what it is loaded by.
        max_length: tokens of a sequence, prompt and answer; None for the default on a CPU, the model's own on a GPU.
        max_batch_size: sequences computed at once, more wait; None for MAX's choice on a GPU, the default on a CPU.
        api_key_file: file of keys, one a line; None for the environment's, or none.
        max_body_bytes: of a request.
        drain_seconds: that running requests get to finish when the server is told to stop.
        telemetry: whether MAX may report to its makers.
        ui: whether there is a page to chat on as well.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    name: str | None = None
    max_length: int | None = None
    max_batch_size: int | None = None
    api_key_file: Path | None = None
    max_body_bytes: int = 4 * 2**20
    drain_seconds: int = 30
    telemetry: bool = False
    ui: bool = False

    @property
    def cpu_batch_size(self) -> int:
        """Sequences computed at once on a CPU."""
        return self.max_batch_size or SERVED_BATCH_SIZE

    @property
    def served_name(self) -> str:
        """What requests call the model: the name asked for, the Hub id, or the folder's name."""
        if self.name is not None:
            return self.name
        if self.model is None:
            return DEMO_NAME
        folder = os.path.expanduser(self.model)
        # Not Path's, which raises for a name that is too long.
        return Path(folder).resolve().name if os.path.exists(folder) else self.model
