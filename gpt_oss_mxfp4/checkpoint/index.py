"""Safetensors headers: where each tensor lies in a file, read without touching a byte of weight.

The safetensors library checks headers too, but its Python side gives no byte offsets, lets the
later of two equal keys win and names neither the tensor nor the cure; so the header (a length, then
JSON) is read here. A test holds the two readers against each other: whatever this one takes, the
library takes and sees alike.

Source: the format section of the safetensors README, and its rule that the data is covered from the
first byte to the last without overlap or gap.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from gpt_oss_mxfp4.checkpoint.errors import CHECK_PATH, CheckpointError, Fault, quoted
from gpt_oss_mxfp4.checkpoint.strict_json import parse_object

LENGTH_BYTES = 8
"""Size of the little-endian header length that opens the file."""

MAX_HEADER_BYTES = 8 * 1024 * 1024
"""Largest header that is read, parsed to 290 MB at worst; gpt-oss-120b's are under 100 kB. The format's own
cap is 100 MB."""

MAX_BYTES = 2**63 - 1
"""Largest size or offset believed: what a file offset can hold."""

MAX_RANK = 8
"""Most dimensions believed, twice what blocks have: bounds the cost of multiplying them."""

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element of each dtype that safetensors 0.8 knows."""

_DAMAGED = "The file is damaged or was not written as safetensors: download it again"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    Args:
        name: Its name in the checkpoint.
        dtype: Its safetensors dtype: ``BF16``, ``U8``.
        shape: Its shape in elements.
        file: The file that holds it.
        begin: Offset of its first byte from the start of the file, not of the data section.
        end: Offset after its last byte, counted alike.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes the tensor occupies."""
        return self.end - self.begin


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Reads the header of one safetensors file, which must be sound.

    Args:
        path: The file.

    Returns:
        The entries by tensor name, in the file's order.

    Raises:
        CheckpointError: If the file cannot be read or its header is not sound; where = the file.
    """
    entries, faults = scan_header(path)
    if faults:
        raise CheckpointError(path, faults)
    return entries


def scan_header(path: Path) -> tuple[dict[str, TensorEntry], list[Fault]]:
    """Reads the header of one safetensors file as far as it makes sense.

    Only the header's bytes are read, unbuffered so that not even read-ahead reaches the weights.

    Args:
        path: The file.

    Returns:
        The entries by tensor name, in the file's order, and what is wrong with it. Where something
        is, an entry's place in the file means nothing.

    Raises:
        CheckpointError: If the file cannot be read or has no header; where = the file.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            text = _header_text(path, stream, size)
    except OSError as error:
        fault = Fault("unreadable file", f"cannot be read ({error.strerror})", CHECK_PATH)
        raise CheckpointError(path, [fault]) from error
    header = _parse(path, text)
    data_begin = LENGTH_BYTES + len(text)

    entries: dict[str, TensorEntry] = {}
    faults: list[Fault] = []
    for name, fields in header.items():
        try:
            entries[name] = _entry(path, name, fields, data_begin)
        except ValueError as error:
            faults.append(Fault("bad header", f"{quoted(name)} {error}", _DAMAGED))
    if not faults:
        faults = list(_cover_faults(entries.values(), data_begin, size))
    return entries, faults


def _header_text(path: Path, stream: FileIO, size: int) -> bytes:
    if size < LENGTH_BYTES:
        rule = f"must open with an {LENGTH_BYTES}-byte header length, has only {size} bytes"
        raise CheckpointError(path, [Fault("truncated file", rule, _DAMAGED)])
    length = int.from_bytes(_read_exactly(stream, LENGTH_BYTES), "little")
    if length < len(b"{}"):
        rule = f"header length must be at least 2 bytes, got {length}"
        raise CheckpointError(path, [Fault("bad header", rule, _DAMAGED)])
    if length > MAX_HEADER_BYTES:
        rule = f"header length must be at most {MAX_HEADER_BYTES} bytes, got {length}"
        raise CheckpointError(path, [Fault("bad header", rule, _DAMAGED)])
    if length > size - LENGTH_BYTES:
        rule = f"header of {length} bytes must lie inside the file, which has {size} bytes"
        raise CheckpointError(path, [Fault("truncated file", rule, _DAMAGED)])
    return _read_exactly(stream, length)


def fill(stream: FileIO, buffer: memoryview) -> bool:
    """Fills a buffer from a raw stream, whose single read may give fewer bytes.

    Args:
        stream: Where the bytes come from, at the first of them.
        buffer: Of bytes.

    Returns:
        Whether there were as many.

    Raises:
        OSError: They cannot be read.
    """
    while buffer:
        count = stream.readinto(buffer)
        if not count:
            return False
        buffer = buffer[count:]
    return True


def _read_exactly(stream: FileIO, count: int) -> bytes:
    data = bytearray(count)
    if not fill(stream, memoryview(data)):
        raise OSError(0, "the file became shorter while it was read")
    return bytes(data)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        if not text.startswith(b"{"):
            raise ValueError(f"must begin with '{{', got {ascii(text[:1])[1:]}")
        header = parse_object(text)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("__metadata__ must be an object of strings")
    except ValueError as error:
        raise CheckpointError(path, [Fault("bad header", f"header {error}", _DAMAGED)]) from None
    return header


def _entry(path: Path, name: str, fields: Any, data_begin: int) -> TensorEntry:
    """One tensor's entry; a ValueError carries the clause that follows its name in the message."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("must have exactly the keys data_offsets, dtype and shape")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"must have a safetensors dtype, got {quoted(dtype)}")
    if not _is_sizes(shape) or len(shape) > MAX_RANK:
        rule = f"must have a shape of at most {MAX_RANK} integers from 0 to 2^63 - 1"
        raise ValueError(f"{rule}, got {quoted(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        rule = "must have data_offsets [begin, end] with begin <= end"
        raise ValueError(f"{rule}, got {quoted(offsets)}")
    # A zero must not hide dimensions whose product overflows: the library refuses those.
    if math.prod(size for size in shape if size) > MAX_BYTES // DTYPE_BITS[dtype]:
        raise ValueError(f"must have a size below 2^63 bits, got shape {quoted(shape)}")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    begin, end = offsets
    if bits % 8:
        raise ValueError(f"must end on a whole byte, {dtype} {shape} has {bits} bits")
    if end - begin != bits // 8:
        rule = f"must span {bits // 8} bytes for {dtype} {shape}"
        raise ValueError(f"{rule}, its data_offsets span {end - begin}")
    return TensorEntry(name, dtype, tuple(shape), path, data_begin + begin, data_begin + end)


def _is_sizes(value: Any) -> bool:
    # bool is an int to Python and a float may equal one: neither is a size.
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= MAX_BYTES for v in value)


def _cover_faults(entries: Iterable[TensorEntry], data_begin: int, size: int) -> Iterable[Fault]:
    """Faults unless the tensors cover the data section from its first byte to the file's last."""
    position, before = data_begin, "the header"
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end, entry.name)):
        name = quoted(entry.name)
        if entry.begin != position:
            word = "overlaps" if entry.begin < position else "leaves a gap after"
            yield Fault(
                "bad header",
                f"{name} must begin at byte {position} of the file, where {before} ends,"
                f" got {entry.begin}: it {word} {before}",
                _DAMAGED,
            )
        position, before = entry.end, name
    rule = f"must have {position} bytes by its header, has {size}"
    if position > size:
        yield Fault("truncated file", f"{rule}: {position - size} are missing", _DAMAGED)
    elif position < size:
        yield Fault("trailing bytes", f"{rule}: {size - position} too many", _DAMAGED)
