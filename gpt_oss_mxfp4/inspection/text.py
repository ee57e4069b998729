"""An inspection as text: facts, tables, and why it would be refused, as wide as a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gpt_oss_mxfp4.checkpoint.errors import fault_lines, quoted
from gpt_oss_mxfp4.config import SLIDING, GptOssConfig
from gpt_oss_mxfp4.inspection.inspection import Inspection
from gpt_oss_mxfp4.quantity import bytes_text, count_text

_DEVICES = {"cpu": "CPU", "gpu": "GPU (Hopper)"}

_SHOWN_NOT_READ = 12


def inspection_text(seen: Inspection) -> str:
    """Writes an inspection down.

    Args:
        seen: The facts.

    Returns:
        Lines, the last one ended.
    """
    parts = [[seen.name, *_facts(seen)], _kind_table(seen), _memory_table(seen), _not_read(seen)]
    if seen.faults:
        refused = f"would run: no, {count_text(len(seen.faults), 'fault')}"
        parts.append([refused, *(f"  {line}" for line in fault_lines(seen.faults))])
    else:
        parts.append(["would run: yes"])
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _facts(seen: Inspection) -> list[str]:
    rows = [("layout", seen.layout.description)]
    if seen.variant is not None:
        rows.append(("variant", f"gpt-oss-{seen.variant}" if seen.variant != "other" else "other"))
    if seen.parameters is not None:
        total, active = (_billions(n) for n in (seen.parameters.total, seen.parameters.active))
        rows.append(
            ("weights", f"{total}, {active} for a token, {seen.parameters.bits_each:.2f} bits each")
        )
    if seen.config is not None:
        rows += _config_facts(seen.config)
    files = f"{count_text(len(seen.files), 'file')}, {bytes_text(sum(seen.files.values()))}"
    rows.append(("files", files))
    return [f"  {name:<12}{value}" for name, value in rows]


def _config_facts(config: GptOssConfig) -> list[tuple[str, str]]:
    sliding = config.layer_types.count(SLIDING)
    layers = config.num_hidden_layers
    return [
        (
            "layers",
            f"{layers}, {sliding} of them with a window of {config.sliding_window} tokens",
        ),
        (
            "attention",
            f"{config.num_attention_heads} query and {config.num_key_value_heads} key-value heads of {config.head_dim}",
        ),
        (
            "experts",
            f"{config.num_local_experts}, {config.num_experts_per_tok} for a token, of "
            f"{config.hidden_size} x {config.intermediate_size}",
        ),
        ("vocabulary", f"{config.vocab_size} tokens"),
        ("context", f"{config.max_position_embeddings} tokens"),
    ]


def _kind_table(seen: Inspection) -> list[str]:
    if not seen.kinds:
        return []
    whole = max(seen.nbytes, 1)
    rows = [
        (
            kind.kind,
            str(kind.count),
            kind.dtype,
            bytes_text(kind.nbytes),
            f"{kind.nbytes / whole:.1%}",
        )
        for kind in seen.kinds
    ]
    count = sum(kind.count for kind in seen.kinds)
    rows.append(("all", str(count), "", bytes_text(seen.nbytes), ""))
    return _table(("tensors", "count", "dtype", "size", "share"), rows, left=(0, 2))


def _memory_table(seen: Inspection) -> list[str]:
    rows = []
    for device, taken in seen.memory.items():
        parts = (taken.weights, taken.kv_cache, taken.tables, taken.activations, taken.total)
        rows.append((_DEVICES[device], *map(bytes_text, parts)))
    if not rows:
        return []
    tokens = next(iter(seen.memory.values())).tokens
    heading = ("memory", "weights", "KV cache", "rotations", "the rest", "all")
    return [
        *_table(heading, rows, left=(0,)),
        f"  KV cache: of one sequence of {tokens} tokens, at most. On a CPU weights stay in the mapped file.",
    ]


def _not_read(seen: Inspection) -> list[str]:
    lines = [f"  {note}" for note in seen.notes]
    for beside in seen.not_read:
        size = bytes_text(beside.nbytes)
        if beside.name.endswith("/"):
            size = f"{count_text(beside.files, 'file')}, {size}"
        remark = f": {beside.remark}" if beside.remark else ""
        lines.append(f"  {quoted(beside.name)} ({size}){remark}")
    if len(lines) > _SHOWN_NOT_READ:
        lines[_SHOWN_NOT_READ:] = [f"  and {len(lines) - _SHOWN_NOT_READ} more"]
    return ["not read", *lines] if lines else []


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = []
    for row in (heading, *rows):
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _billions(count: int) -> str:
    for unit, size in (("billion", 10**9), ("million", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
