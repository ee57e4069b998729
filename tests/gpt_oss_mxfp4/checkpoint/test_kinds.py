"""Tensors counted by kind: every name has one, and unknown ones come last."""

from __future__ import annotations

from pathlib import Path

from gpt_oss_mxfp4.checkpoint.index import TensorEntry
from gpt_oss_mxfp4.checkpoint.kinds import KindTotal, total_by_kind
from tests.gpt_oss_mxfp4.checkpoint.small import small_tensors


def entry(name: str, dtype: str, nbytes: int) -> TensorEntry:
    return TensorEntry(name, dtype, (nbytes,), Path("a.safetensors"), 10, 10 + nbytes)


def test_every_name_has_a_kind_and_unknown_ones_come_last() -> None:
    totals = total_by_kind(
        [
            entry("lm_head.weight_2", "U8", 1),
            entry("block.0.attn.sinks", "BF16", 2),
            entry("lm_head.weight", "F32", 4),
            entry("a", "U8", 8),
            entry("model.embed_tokens.weight", "BF16", 16),
            entry("lm_head.weight", "BF16", 32),
        ]
    )
    assert totals == [
        KindTotal("embedding", "BF16", 1, 16),
        KindTotal("output matrix", "BF16", 1, 32),
        KindTotal("output matrix", "F32", 1, 4),
        KindTotal("original/ names", "BF16", 1, 2),
        KindTotal("other", "U8", 2, 9),
    ]


def test_no_tensor_of_gpt_oss_is_another() -> None:
    totals = total_by_kind(entry(name, dtype, 2) for name, (dtype, _) in small_tensors().items())
    assert not {"original/ names", "other"} & {total.kind for total in totals}
    assert sum(total.count for total in totals) == len(small_tensors())
