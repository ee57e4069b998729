"""Broken and hostile checkpoint folders: each a name, what is done to a sound folder, what must be said of it.

One list for the loader and for every verb. The sound folder has two shards, an index and a config.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.index import MAX_HEADER_BYTES
from gpt_oss_mxfp4.checkpoint.strict_json import MAX_FILE_BYTES
from tests.gpt_oss_mxfp4.checkpoint.small import Tensors, raw_file, small_tensors, write_folder

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

BLOCKS = "model.layers.0.mlp.experts.gate_up_proj_blocks"
SCALES = "model.layers.0.mlp.experts.gate_up_proj_scales"
NORM = "model.norm.weight"


@dataclass(frozen=True)
class Case:
    """A folder that must be refused.

    Args:
        name: What is wrong with it.
        make: Does that to a sound folder.
        told: Pieces of the refusal: the file, the tensor, the rule.
    """

    name: str
    make: Callable[[Path], None]
    told: tuple[str, ...]


def write_sound(folder: Path) -> Path:
    """The folder that is changed; it is loaded as it is."""
    files = halves()
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    return write_folder(folder, files, weight_map)


def halves() -> dict[str, Tensors]:
    """The small checkpoint in two shards."""
    items = list(small_tensors().items())
    return {ONE: dict(items[:20]), TWO: dict(items[20:])}


def split(folder: Path, name: str = ONE) -> tuple[dict[str, Any], bytes]:
    """A shard's header and data."""
    content = (folder / name).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def content_is(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: _ignore((folder / name).write_bytes(content))


def json_is(name: str, **changes: Any) -> Callable[[Path], None]:
    """Fields of a JSON file changed; None removes one."""

    def make(folder: Path) -> None:
        fields = json.loads((folder / name).read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return make


def header_is(text: bytes, length: int | None = None) -> Callable[[Path], None]:
    """The first shard's header replaced, its data kept."""

    def make(folder: Path) -> None:
        _, data = split(folder)
        (folder / ONE).write_bytes(raw_file(text, data, length))

    return make


def entry_is(name: str, **changes: Any) -> Callable[[Path], None]:
    """Fields of a tensor of the first shard changed; None removes one."""

    def make(folder: Path) -> None:
        header, data = split(folder)
        fields = header[name] | changes
        header[name] = {key: value for key, value in fields.items() if value is not None}
        (folder / ONE).write_bytes(raw_file(json.dumps(header).encode(), data))

    return make


def tensors_are(change: Callable[[Tensors], None]) -> Callable[[Path], None]:
    """All tensors in one sound file without an index, some changed."""

    def make(folder: Path) -> None:
        tensors = small_tensors()
        change(tensors)
        for name in (ONE, TWO, INDEX):
            (folder / name).unlink()
        write_folder(folder, {"model.safetensors": tensors})

    return make


def index_names(file: Any) -> Callable[[Path], None]:
    """One tensor said to be in another file."""

    def make(folder: Path) -> None:
        weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
        json_is(INDEX, weight_map=weight_map | {NORM: file})(folder)

    return make


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A file replaced by something else of its name."""

    def do(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return do


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def all_of(*makes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: _ignore([make(folder) for make in makes])


def _ignore(value: object) -> None:
    """For a lambda whose value means nothing."""


def _truncations() -> Iterator[Case]:
    """The first shard cut at every boundary of its structure, and beside it."""
    header, data = split_of_sound()
    text = json.dumps(header).encode()
    whole = raw_file(text, data)
    begin = len(whole) - len(data)
    ends = {entry["data_offsets"][1] + begin for entry in header.values()}
    cuts = {0, 1, 7, 8, 9, begin - 1, begin, begin + 1, *ends, len(whole) - 1} - {len(whole)}
    for cut in sorted(cuts):
        yield Case(f"cut at byte {cut} of {len(whole)}", content_is(ONE, whole[:cut]), (ONE,))
    more = content_is(ONE, whole + b"\0")
    yield Case("one byte too many", more, (ONE, "1 too many"))


def split_of_sound() -> tuple[dict[str, Any], bytes]:
    """Header and data of the sound first shard."""
    header, position = {}, 0
    for name, (dtype, shape) in halves()[ONE].items():
        size = {"U8": 1, "BF16": 2}[dtype]
        for n in shape:
            size *= n
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    return header, bytes(position)


def _lengths() -> Iterator[Case]:
    text = json.dumps(split_of_sound()[0]).encode()
    for length, told in [
        (0, "must be at least 2 bytes, got 0"),
        (1, "must be at least 2 bytes, got 1"),
        (len(text) - 1, "is not valid JSON"),
        (len(text) + 1, "is not valid JSON"),
        (10**6, "must lie inside the file"),
        (MAX_HEADER_BYTES + 1, f"must be at most {MAX_HEADER_BYTES} bytes"),
        (100_000_001, f"must be at most {MAX_HEADER_BYTES} bytes"),
        (2**63, f"must be at most {MAX_HEADER_BYTES} bytes"),
        (2**64 - 1, f"must be at most {MAX_HEADER_BYTES} bytes"),
    ]:
        yield Case(f"header length {length}", header_is(text, length), (ONE, told))


def _headers() -> Iterator[Case]:
    entry = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for name, text, told in [
        ("empty", b"{}", "too many"),
        ("no JSON", b'{"a":', "is not valid JSON"),
        ("a list", b"[]", "must begin with '{'"),
        ("a byte order mark", b"\xef\xbb\xbf{}", "must begin with '{'"),
        ("UTF-16", '{"a":1}'.encode("utf-16"), "must begin with '{'"),
        ("invalid UTF-8", b'{"\xff":1}', "is not valid JSON"),
        ("lone surrogate", rb'{"\ud800":1}', "is not valid JSON"),
        ("NaN", b'{"a":NaN}', "holds NaN"),
        ("two objects", b"{}{}", "is not valid JSON"),
        ("deep nesting of lists", b'{"a":' + b"[" * 10**5, "is nested too deeply"),
        ("deep nesting of objects", b'{"a":' * 10**5, "is nested too deeply"),
        ("an integer of 5000 digits", b'{"a":' + b"1" * 5000 + b"}", "is not valid JSON"),
        ("a tensor twice", b'{"a":' + entry + b',"a":' + entry + b"}", "holds the key a twice"),
        ("metadata no object", b'{"__metadata__":7}', "__metadata__ must be an object of strings"),
        ("metadata no strings", b'{"__metadata__":{"a":{}}}', "must be an object of strings"),
        ("a name of a megabyte", b'{"' + b"n" * 2**20 + b'":1}', "must have exactly the keys"),
        ("a name that clears the screen", rb'{"\u001b[2J":1}', r"'\x1b[2J' must have exactly"),
        ("a name of zeros", rb'{"\u0000":1}', r"'\x00' must have exactly"),
    ]:
        yield Case(f"header: {name}", header_is(text), (ONE, told))


def _entries() -> Iterator[Case]:
    blocks, scales = [2, 64, 2, 16], [2, 64, 2]
    rows: list[tuple[str, str, dict[str, Any], str]] = [
        ("no dtype", NORM_IN_ONE, {"dtype": None}, "must have exactly the keys"),
        ("one key more", NORM_IN_ONE, {"x": 1}, "must have exactly the keys"),
        ("unknown dtype", NORM_IN_ONE, {"dtype": "BF17"}, "must have a safetensors dtype"),
        ("dtype in small letters", NORM_IN_ONE, {"dtype": "bf16"}, "must have a safetensors dtype"),
        ("dtype no string", NORM_IN_ONE, {"dtype": 16}, "must have a safetensors dtype"),
        ("dtype of another size", NORM_IN_ONE, {"dtype": "F32"}, "its data_offsets span"),
        ("dtype of the same size", NORM_IN_ONE, {"dtype": "F16"}, "must be BF16, got F16"),
        ("codes called integers", BLOCKS, {"dtype": "I8"}, "must be U8, got I8"),
        ("negative size", NORM_IN_ONE, {"shape": [-64]}, "must have a shape of at most 8"),
        ("size no integer", NORM_IN_ONE, {"shape": [64.0]}, "must have a shape of at most 8"),
        ("size true", NORM_IN_ONE, {"shape": [True, 64]}, "must have a shape of at most 8"),
        ("shape no list", NORM_IN_ONE, {"shape": 64}, "must have a shape of at most 8"),
        ("a thousand dimensions", NORM_IN_ONE, {"shape": [1] * 1000}, "must have a shape of"),
        (
            "overflow of sizes",
            NORM_IN_ONE,
            {"shape": [2**32, 2**32]},
            "must have a size below 2^63",
        ),
        ("overflow behind a zero", NORM_IN_ONE, {"shape": [0, 2**62, 4]}, "a size below 2^63"),
        ("size of 2^64", NORM_IN_ONE, {"shape": [2**64]}, "must have a shape of at most 8"),
        ("negative offset", NORM_IN_ONE, {"data_offsets": [-128, 0]}, "must have data_offsets"),
        ("offset of 2^64", NORM_IN_ONE, {"data_offsets": [2**64, 2**64 + 128]}, "data_offsets"),
        ("offset of 2^63 - 1", NORM_IN_ONE, {"data_offsets": [2**63 - 129, 2**63 - 1]}, "a gap"),
        ("offsets swapped", NORM_IN_ONE, {"data_offsets": [128, 0]}, "must have data_offsets"),
        ("three offsets", NORM_IN_ONE, {"data_offsets": [0, 64, 128]}, "must have data_offsets"),
        ("offsets of another tensor", NORM_IN_ONE, {"data_offsets": [0, 128]}, "overlaps"),
        ("experts missing", BLOCKS, {"shape": [1, *blocks[1:]]}, "its data_offsets span"),
        ("blocks transposed", BLOCKS, {"shape": [2, 2, 64, 16]}, f"must be {blocks}, got"),
        ("blocks flattened", BLOCKS, {"shape": [2, 64, 32]}, f"must be {blocks}, got [2, 64, 32]"),
        ("scales transposed", SCALES, {"shape": [2, 2, 64]}, f"must be {scales}, got [2, 2, 64]"),
        ("experts outside", SCALES, {"shape": [64, 2, 2]}, f"must be {scales}, got [64, 2, 2]"),
    ]
    for name, tensor, changes, told in rows:
        yield Case(f"tensor: {name}", entry_is(tensor, **changes), (ONE, tensor, told))


NORM_IN_ONE = "model.layers.0.input_layernorm.weight"


def _tensors() -> Iterator[Case]:
    def lacks(*names: str) -> Callable[[Tensors], None]:
        return lambda tensors: _ignore([tensors.pop(name) for name in names])

    def has(**changes: tuple[str, tuple[int, ...]]) -> Callable[[Tensors], None]:
        return lambda tensors: tensors.update({k.replace("__", "."): v for k, v in changes.items()})

    def renamed(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    def more_experts(tensors: Tensors) -> None:
        for name, (dtype, shape) in list(tensors.items()):
            if ".experts." in name:
                tensors[name] = (dtype, (4, *shape[1:]))

    for name, change, told in [
        ("one missing", lacks(NORM), f"{NORM} must be there, is missing"),
        ("scales missing", lacks(SCALES), f"{BLOCKS} must have {SCALES} beside it"),
        ("blocks missing", lacks(BLOCKS), f"{SCALES} must have {BLOCKS} beside it"),
        ("one of another model", has(model__visual__weight=("BF16", (4,))), "model.visual.weight"),
        ("an eleventh layer", has(model__layers__10__self_attn__sinks=("BF16", (4,))), "layers.10"),
        ("renamed", renamed, "model.layers.0.input_layernorm.weight must be there, is missing"),
        ("experts doubled", more_experts, "must have num_local_experts = 2 experts, got 4"),
        ("none at all", lacks(*small_tensors()), "model.embed_tokens.weight must be there"),
    ]:
        yield Case(f"tensors: {name}", tensors_are(change), (told,))


def _files() -> Iterator[Case]:
    missing = f"{TWO} must be in the folder, is missing"
    for name, make in [
        ("missing", lambda path: None),
        ("a folder", lambda path: path.mkdir()),
        ("a pipe", os.mkfifo),
        ("a device", link_to("/dev/zero")),
        ("a dangling link", link_to("/absent")),
        ("a link to itself", link_to(TWO)),
        ("a link to a folder", link_to(".")),
        ("renamed", lambda path: (path.parent / ONE).rename(path)),
    ]:
        told = f"{ONE} must be in the folder, is missing" if name == "renamed" else missing
        yield Case(f"shard: {name}", replaced(TWO, make), (told,))
    copy = all_of(
        lambda folder: _ignore((folder / "z.safetensors").write_bytes((folder / TWO).read_bytes()))
    )
    yield Case("shard: a copy more", copy, ("must be in one file, is in", "z.safetensors"))
    swapped = content_is(TWO, raw_file(b"{}"))
    yield Case("shard: empty of tensors", swapped, (f"must be in {TWO} by {INDEX}, is not",))
    text = content_is(TWO, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    yield Case("shard: a pointer of git-lfs", text, (TWO, "must be at most"))


def _indexes() -> Iterator[Case]:
    own = "weight_map must name *.safetensors files of its own folder"
    for file in [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a/../../model.safetensors",
        "..\\model.safetensors",
        "original/model.safetensors",
        ".hidden.safetensors",
        "model.bin",
        "\0.safetensors",
        "\n.safetensors",
        "",
        7,
        None,
        [ONE],
        {"a": ONE},
    ]:
        yield Case(f"index names {file!r}", index_names(file), (INDEX, own))
    yield Case("index names the other shard", index_names(ONE), (NORM, f"must be in {ONE} by"))
    yield Case(
        "index names an absent shard", index_names("x.safetensors"), ("x.safetensors must be",)
    )
    few = json_is(INDEX, weight_map={NORM: TWO})
    yield Case("index lists one tensor", few, ("must be listed in", INDEX))
    for name, content, told in [
        ("empty", b"", "is not valid JSON"),
        ("a list", b"[]", "must be a JSON object, got a list"),
        ("no map", b"{}", "weight_map must be an object, not empty"),
        ("a list for a map", b'{"weight_map":["a"]}', "weight_map must be an object"),
        ("a key twice", b'{"weight_map":{"a":"b.safetensors","a":""}}', "holds the key a twice"),
        ("invalid UTF-8", b'{"weight_map":{"\xff":""}}', "is not valid JSON"),
        ("deep nesting", b'{"weight_map":' * 10**5, "is nested too deeply"),
        ("too large", b" " * (MAX_FILE_BYTES + 1), f"must be at most {MAX_FILE_BYTES} bytes"),
    ]:
        yield Case(f"index: {name}", content_is(INDEX, content), (INDEX, told))
    yield from _specials(INDEX, "must be a file, is none")


def _specials(name: str, told: str) -> Iterator[Case]:
    """Things that are no files in place of one."""
    for what, make in [
        ("a folder", lambda path: path.mkdir()),
        ("a pipe", os.mkfifo),
        ("a device", link_to("/dev/zero")),
        ("a dangling link", link_to("/absent")),
        ("a link to itself", link_to(name)),
    ]:
        yield Case(f"{name}: {what}", replaced(name, make), (name, told))


def _configs() -> Iterator[Case]:
    for name, content, told in [
        ("empty", b"", "is not valid JSON"),
        ("a list", b"[]", "must be a JSON object, got a list"),
        ("null", b"null", "must be a JSON object, got null"),
        ("invalid UTF-8", b'{"a":"\xff"}', "is not valid JSON"),
        ("a key twice", b'{"a":1,"a":2}', "holds the key a twice"),
        ("NaN", b'{"rms_norm_eps":NaN}', "holds NaN, which is not JSON"),
        ("deep nesting", b'{"a":' * 10**5, "is nested too deeply"),
        ("an integer of 5000 digits", b'{"a":' + b"9" * 5000 + b"}", "is not valid JSON"),
        ("too large", b" " * (MAX_FILE_BYTES + 1), f"must be at most {MAX_FILE_BYTES} bytes"),
    ]:
        yield Case(f"config: {name}", content_is(CONFIG, content), (CONFIG, told))
    for key, value, told in [
        ("model_type", "llama", 'model_type must be "gpt_oss", got "llama"'),
        ("vocab_size", 2**40, "vocab_size must be an integer from 1 to"),
        ("vocab_size", 0, "vocab_size must be an integer from 1 to"),
        ("hidden_size", 10**400, "hidden_size must be an integer from 1 to"),
        ("hidden_size", -64, "hidden_size must be an integer from 1 to"),
        ("hidden_size", 63, "hidden_size must be a multiple of 32, got 63"),
        ("hidden_size", 64.0, "hidden_size must be an integer from 1 to"),
        ("hidden_size", "64", "hidden_size must be an integer from 1 to"),
        ("hidden_size", [64], "hidden_size must be an integer from 1 to"),
        ("hidden_size", True, "hidden_size must be an integer from 1 to"),
        ("num_hidden_layers", 10**9, "num_hidden_layers must be an integer from 1 to 1024"),
        ("num_hidden_layers", 100, "model.layers.10.input_layernorm.weight must be there"),
        ("num_local_experts", 10**9, "num_local_experts must be an integer from 1 to"),
        ("num_local_experts", 4, "must have num_local_experts = 4 experts, got 2"),
        ("num_experts_per_tok", 3, "num_experts_per_tok must be at most num_local_experts = 2"),
        ("num_key_value_heads", 3, "must be a multiple of num_key_value_heads"),
        ("head_dim", 7, "head_dim must be even, got 7"),
        ("rms_norm_eps", 0, "rms_norm_eps must be a number above 0"),
        ("rms_norm_eps", 1e300, "rms_norm_eps must be a number above 0"),
        ("rms_norm_eps", 10**400, "rms_norm_eps must be a number above 0"),
        ("layer_types", ["full_attention"], "layer_types must have num_hidden_layers = 2 items"),
        ("layer_types", ["full_attention", {}], "layer_types must be a list of"),
        ("layer_types", {"a": 1}, "layer_types must be a list of"),
        ("rope_scaling", 7, "rope_parameters (or rope_scaling) must be an object, got 7"),
        ("rope_scaling", {"rope_type": "linear"}, 'rope_type must be "yarn", got "linear"'),
        ("eos_token_id", -1, "eos_token_id must be a token id"),
        ("eos_token_id", [99], "eos_token_id must be below vocab_size = 16, got 99"),
        ("quantization_config", [], "quantization_config must be an object"),
        ("quantization_config", {"quant_method": "awq"}, 'quant_method must be "mxfp4", got "awq"'),
        ("tie_word_embeddings", "yes", "tie_word_embeddings must be true or false"),
        ("hidden_act", "gelu", 'hidden_act must be "silu", got "gelu"'),
    ]:
        shown = repr(value) if len(repr(value)) < 40 else "huge"
        yield Case(f"config: {key} {shown}", json_is(CONFIG, **{key: value}), (told,))
    infinite = all_of(
        lambda folder: _ignore(
            (folder / CONFIG).write_text((folder / CONFIG).read_text().replace("1e-05", "1e999"))
        )
    )
    yield Case("config: 1e999", infinite, (CONFIG, "holds 1e999, which is too large"))
    absent = all_of(lambda folder: (folder / CONFIG).unlink())
    yield Case("config: absent", absent, (f"must hold {CONFIG}, does not",))
    yield from _specials(CONFIG, f"must hold {CONFIG}, does not")


CASES = [
    *_truncations(),
    *_lengths(),
    *_headers(),
    *_entries(),
    *_tensors(),
    *_files(),
    *_indexes(),
    *_configs(),
]
