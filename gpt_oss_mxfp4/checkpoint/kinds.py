"""What a tensor is, by its name: the rows of ``inspect``'s table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.layout import is_original

_KINDS = (
    ("expert codes", re.compile(r"model\.layers\.\d+\.mlp\.experts\.\w+_blocks")),
    ("expert scales", re.compile(r"model\.layers\.\d+\.mlp\.experts\.\w+_scales")),
    ("expert biases", re.compile(r"model\.layers\.\d+\.mlp\.experts\.\w+_bias")),
    ("expert weights", re.compile(r"model\.layers\.\d+\.mlp\.experts\.(gate_up|down)_proj")),
    ("router", re.compile(r"model\.layers\.\d+\.mlp\.router\.\w+")),
    ("attention weights", re.compile(r"model\.layers\.\d+\.self_attn\.\w_proj\.weight")),
    ("attention biases", re.compile(r"model\.layers\.\d+\.self_attn\.\w_proj\.bias")),
    ("attention sinks", re.compile(r"model\.layers\.\d+\.self_attn\.sinks")),
    ("norms", re.compile(r"model\.(layers\.\d+\.\w+_layernorm|norm)\.weight")),
    ("embedding", re.compile(r"model\.embed_tokens\.weight")),
    ("output matrix", re.compile(r"lm_head\.weight")),
)
"""In the order of the table."""

_ROUNDED_KINDS = ("attention weights", "output matrix")

ORIGINAL_KIND = "original/ names"
OTHER_KIND = "other"


@dataclass(frozen=True)
class KindTotal:
    """All tensors of a kind and dtype.

    Args:
        kind: What they are.
        dtype: Their safetensors dtype.
        count: How many there are.
        nbytes: Bytes of all of them.
    """

    kind: str
    dtype: str
    count: int
    nbytes: int


def kind_of(name: str) -> str:
    """Names what a tensor is."""
    for kind, pattern in _KINDS:
        if pattern.fullmatch(name):
            return kind
    return ORIGINAL_KIND if is_original(name) else OTHER_KIND


def is_rounded(name: str) -> bool:
    """Whether ``--dense-weights`` rounds a tensor while it is loaded.

    Not the router, whose few weights decide which experts are read, nor the embedding, of which rows are read.
    """
    return kind_of(name) in _ROUNDED_KINDS


def total_by_kind(entries: Iterable[TensorEntry]) -> list[KindTotal]:
    """Counts tensors by kind and dtype, in the order of the table."""
    order = [kind for kind, _ in _KINDS] + [ORIGINAL_KIND, OTHER_KIND]
    sizes: dict[tuple[str, str], list[int]] = {}
    for entry in entries:
        sizes.setdefault((kind_of(entry.name), entry.dtype), []).append(entry.nbytes)
    found = [KindTotal(kind, dtype, len(of), sum(of)) for (kind, dtype), of in sizes.items()]
    return sorted(found, key=lambda total: (order.index(total.kind), total.dtype))
