"""Safetensors headers: sound ones are read as the library reads them, all others refused by name."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gpt_oss_mxfp4.checkpoint import index
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError
from gpt_oss_mxfp4.checkpoint.index import DTYPE_BITS, MAX_HEADER_BYTES, read_header
from tests.gpt_oss_mxfp4.checkpoint.small import file_bytes, raw_file

CURE = "The file is damaged or was not written as safetensors: download it again"

# A header as the safetensors library wrote it (0.8.0, one U8 tensor [2, 2]), padded to a multiple of 8.
GOLDEN = (
    b"\x40\x00\x00\x00\x00\x00\x00\x00"
    b'{"blocks":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}}    '
    b"\x01\x02\x03\x04"
)


def refusal(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    return str(caught.value).replace(f"{path}: ", "")


def tensor(dtype: Any, shape: Any, offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_golden_file_gives_offsets_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(GOLDEN)
    (entry,) = read_header(path).values()
    assert (entry.name, entry.dtype, entry.shape, entry.file) == ("blocks", "U8", (2, 2), path)
    assert (entry.begin, entry.end, entry.nbytes) == (72, 76, 4)
    assert GOLDEN[entry.begin : entry.end] == b"\x01\x02\x03\x04"


def test_file_of_the_library_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays: dict[str, NDArray[Any]] = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(7, dtype=np.uint8),
        "empty": np.zeros((0, 4), dtype=np.float16),
        "deep": np.ones((1,) * 8, dtype=np.int8),
    }
    save_file(arrays, path, metadata={"format": "pt"})
    entries = read_header(path)
    assert set(entries) == set(arrays)
    content = path.read_bytes()
    for name, array in arrays.items():
        entry = entries[name]
        assert entry.shape == array.shape
        assert content[entry.begin : entry.end] == array.tobytes()


def test_no_byte_behind_the_header_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []

    class Recorder(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            count = super().readinto(buffer[:7])  # as few bytes as a read may give
            ends.append(self.tell())
            return count

    def record(path: Path, mode: str, buffering: int) -> Recorder:
        assert (mode, buffering) == ("rb", 0)
        return Recorder(path, "rb")

    path = tmp_path / "a.safetensors"
    path.write_bytes(file_bytes({"a": ("BF16", (1000, 1000))}))
    monkeypatch.setattr(index, "open", record, raising=False)
    (entry,) = read_header(path).values()
    assert max(ends) == entry.begin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must open with an 8-byte header length, has only 0 bytes"),
        (b"1234567", "must open with an 8-byte header length, has only 7 bytes"),
        (
            raw_file(b"", length=2),
            "header of 2 bytes must lie inside the file, which has 8 bytes",
        ),
        (raw_file(b"{}", length=1), "header length must be at least 2 bytes, got 1"),
        (
            raw_file(b"{}", length=3),
            "header of 3 bytes must lie inside the file, which has 10 bytes",
        ),
        (
            raw_file(b"{}", length=MAX_HEADER_BYTES),
            "header of 8388608 bytes must lie inside the file, which has 10 bytes",
        ),
        (
            raw_file(b"{}", length=MAX_HEADER_BYTES + 1),
            "header length must be at most 8388608 bytes, got 8388609",
        ),
        (
            raw_file(b"{}", length=2**64 - 1),
            "header length must be at most 8388608 bytes, got 18446744073709551615",
        ),
        (raw_file(b" {}"), "header must begin with '{', got ' '"),
        (raw_file(b"[]"), "header must begin with '{', got '['"),
        (
            raw_file(b'{"a":}'),
            "header is not valid JSON (Expecting value: line 1 column 6 (char 5))",
        ),
        (
            raw_file(b'{"\xff":1}'),
            "header is not valid JSON ('utf-8' codec can't decode byte 0xff in position 2:"
            " invalid start byte)",
        ),
        (
            raw_file(rb'{"\ud800":1}'),
            r"header is not valid JSON ('utf-8' codec can't encode character '\ud800' in position 0:"
            " surrogates not allowed)",
        ),
        (raw_file(b'{"a":' + b"[" * 100_000), "header is nested too deeply to be one of ours"),
        (
            raw_file(b'{"a":{"dtype":"U8"},"a":{"dtype":"U8"}}'),
            "header holds the key a twice",
        ),
        (
            raw_file(b'{"a":{"dtype":"U8","dtype":"U8"}}'),
            "header holds the key dtype twice",
        ),
        (raw_file(b'{"__metadata__":{"a":1}}'), "header __metadata__ must be an object of strings"),
        (raw_file(b'{"__metadata__":[]}'), "header __metadata__ must be an object of strings"),
    ],
)
def test_bad_header_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert refusal(tmp_path, content) == f"{message}. {CURE}."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "must have exactly the keys data_offsets, dtype and shape"),
        (
            ["data_offsets", "dtype", "shape"],
            "must have exactly the keys data_offsets, dtype and shape",
        ),
        ({"dtype": "U8", "shape": [4]}, "must have exactly the keys data_offsets, dtype and shape"),
        (
            {**tensor("U8", [4], [0, 4]), "x": 1},
            "must have exactly the keys data_offsets, dtype and shape",
        ),
        (tensor("U7", [4], [0, 4]), "must have a safetensors dtype, got U7"),
        (tensor(["U8"], [4], [0, 4]), "must have a safetensors dtype, got ['U8']"),
        (
            tensor("U8", [-4], [0, 4]),
            "must have a shape of at most 8 integers from 0 to 2^63 - 1, got [-4]",
        ),
        (
            tensor("U8", {}, [0, 1]),
            "must have a shape of at most 8 integers from 0 to 2^63 - 1, got {}",
        ),
        (
            tensor("U8", [4.0], [0, 4]),
            "must have a shape of at most 8 integers from 0 to 2^63 - 1, got [4.0]",
        ),
        (
            tensor("U8", [True, 4], [0, 4]),
            "must have a shape of at most 8 integers from 0 to 2^63 - 1, got [True, 4]",
        ),
        (
            tensor("U8", [1] * 9, [0, 1]),
            "must have a shape of at most 8 integers from 0 to 2^63 - 1,"
            " got [1, 1, 1, 1, 1, 1, 1, 1, 1]",
        ),
        (
            tensor("U8", [2**40, 2**40], [0, 0]),
            "must have a size below 2^63 bits, got shape [1099511627776, 1099511627776]",
        ),
        (
            tensor("U8", [2**60], [0, 0]),
            "must have a size below 2^63 bits, got shape [1152921504606846976]",
        ),
        (
            tensor("U8", [2**60 - 1], [0, 0]),
            "must span 1152921504606846975 bytes for U8 [1152921504606846975], its data_offsets span 0",
        ),
        (
            tensor("U8", [0, 2**40, 2**40], [0, 0]),
            "must have a size below 2^63 bits, got shape [0, 1099511627776, 1099511627776]",
        ),
        (
            tensor("U8", [4], [-4, 0]),
            "must have data_offsets [begin, end] with begin <= end, got [-4, 0]",
        ),
        (
            tensor("U8", [4], [4, 0]),
            "must have data_offsets [begin, end] with begin <= end, got [4, 0]",
        ),
        (
            tensor("U8", [4], [0, 2, 4]),
            "must have data_offsets [begin, end] with begin <= end, got [0, 2, 4]",
        ),
        (
            tensor("U8", [4], [2**64, 2**64 + 4]),
            "must have data_offsets [begin, end] with begin <= end,"
            " got [18446744073709551616, 18446744073709551620]",
        ),
        (
            tensor("BF16", [4], [2, 6]),
            "must span 8 bytes for BF16 [4], its data_offsets span 4",
        ),
        (tensor("F4", [7], [0, 4]), "must end on a whole byte, F4 [7] has 28 bits"),
    ],
)
def test_bad_tensor_is_refused(tmp_path: Path, fields: Any, message: str) -> None:
    content = raw_file(json.dumps({"w": fields}).encode(), b"1234")
    assert refusal(tmp_path, content) == f"w {message}. {CURE}."


@pytest.mark.parametrize(
    ("begin", "second", "message"),
    [
        # The header is 8 + 130 bytes long, so the first tensor begins at byte 138.
        (0, 3, "b must begin at byte 142 of the file, where a ends, got 141: it overlaps a"),
        (
            0,
            5,
            "b must begin at byte 142 of the file, where a ends, got 143: it leaves a gap after a",
        ),
        (
            1,
            5,
            "a must begin at byte 138 of the file, where the header ends, got 139: it leaves a gap"
            " after the header",
        ),
    ],
)
def test_overlap_and_gap_are_refused(tmp_path: Path, begin: int, second: int, message: str) -> None:
    header = {
        "a": tensor("U8", [4], [begin, begin + 4]),
        "b": tensor("U8", [4], [second, second + 4]),
    }
    text = json.dumps(header).encode().ljust(130)
    assert refusal(tmp_path, raw_file(text, bytes(second + 4))) == f"{message}. {CURE}."


def test_an_empty_tensor_may_begin_where_another_does(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"a": tensor("U8", [4], [0, 4]), "b": tensor("U8", [0], [0, 0])}
    path.write_bytes(raw_file(json.dumps(header).encode(), b"1234"))
    assert list(read_header(path)) == ["a", "b"]
    with safe_open(path, "numpy") as file:
        assert sorted(file.keys()) == ["a", "b"]


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    content = file_bytes({"a": ("U8", (100,))})
    assert refusal(tmp_path, content[:-30]) == (
        f"must have {len(content)} bytes by its header, has {len(content) - 30}: 30 are missing."
        f" {CURE}."
    )


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    content = file_bytes({"a": ("U8", (100,))})
    assert refusal(tmp_path, content + b"x") == (
        f"must have {len(content)} bytes by its header, has {len(content) + 1}: 1 too many. {CURE}."
    )


def test_several_bad_tensors_come_in_one_message(tmp_path: Path) -> None:
    header = {f"w{i:02}": tensor("U7", [], [0, 0]) for i in range(12)}
    lines = refusal(tmp_path, raw_file(json.dumps(header).encode())).splitlines()
    assert lines[0] == "12 faults"
    assert lines[1:3] == ["bad header (12):", "  w00 must have a safetensors dtype, got U7"]
    assert lines[-3:] == [
        "  w09 must have a safetensors dtype, got U7",
        "  and 2 more",
        f"  cure: {CURE}.",
    ]


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shrinking(io.FileIO):
        def readinto(self, buffer: Any, /) -> int:
            os.truncate(self.name, 9)
            return super().readinto(buffer)

    monkeypatch.setattr(index, "open", lambda path, *_, **__: Shrinking(path), raising=False)
    message = refusal(tmp_path, file_bytes({"a": ("U8", (100,))}))
    assert message.startswith("cannot be read (the file became shorter while it was read). ")


def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(caught.value) == (
        f"{path}: cannot be read (No such file or directory). Check the path and its permissions."
    )


NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64, 2**64 + 4, True, 1.0, None, "4"]),
)
SOUND = file_bytes(
    {"a": ("U8", (4,)), "b": ("BF16", (2, 3)), "c": ("F32", (0, 5)), "d": ("F32", ())}
)


@st.composite
def hostile_files(draw: st.DrawFn) -> bytes:
    """A sound file with a few of its header's fields, its length or its end changed."""
    length = int.from_bytes(SOUND[:8], "little")
    header, data = json.loads(SOUND[8 : 8 + length]), SOUND[8 + length :]
    for _ in range(draw(st.integers(0, 2))):
        fields = header[draw(st.sampled_from(sorted(header)))]
        change = draw(st.sampled_from(["dtype", "shape", "data_offsets", "delete", "shift"]))
        if change == "dtype":
            fields["dtype"] = draw(st.sampled_from([*DTYPE_BITS, "U7", 8]))
        elif change == "delete":
            fields.pop(draw(st.sampled_from(sorted(fields))), None)
        elif change == "shift" and isinstance(fields.get("data_offsets"), list):
            step = draw(st.integers(-4, 4))
            fields["data_offsets"] = [
                v + step if type(v) is int else v for v in fields["data_offsets"]
            ]
        else:
            fields[change] = draw(st.lists(NUMBERS, max_size=4))
    text = json.dumps(header).encode() + draw(st.sampled_from([b"", b" ", b"\n", b"x", b"}"]))
    claimed = draw(st.sampled_from([len(text)] * 8 + [0, 1, len(text) - 1, len(text) + 1, 2**63]))
    return raw_file(text, data + draw(st.sampled_from([b""] * 8 + [b"x"])), claimed)


@settings(max_examples=400, deadline=None)
@given(content=st.one_of(hostile_files(), st.binary(max_size=64)))
def test_whatever_is_accepted_the_library_accepts_and_sees_alike(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    try:
        entries = read_header(path)
    except CheckpointError:
        return
    with safe_open(path, framework="numpy") as file:
        assert set(entries) == set(file.keys())
        for name, entry in entries.items():
            view = file.get_slice(name)
            assert (entry.dtype, list(entry.shape)) == (view.get_dtype(), view.get_shape())


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_dtype_has_the_size_that_the_library_gives_it(tmp_path: Path, dtype: str) -> None:
    size = 8 * DTYPE_BITS[dtype] // 8
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        raw_file(json.dumps({"w": tensor(dtype, [8], [0, size])}).encode(), bytes(size))
    )
    assert read_header(path)["w"].nbytes == size
    with safe_open(path, framework="numpy") as file:
        assert file.get_slice("w").get_dtype() == dtype


def test_library_lets_the_later_of_two_equal_keys_win(tmp_path: Path) -> None:
    """Why this header is not left to the library; if it ever refuses, the docstring is to be changed."""
    path = tmp_path / "a.safetensors"
    one = b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    path.write_bytes(raw_file(b"{" + one + b"," + one + b"}", b"1234"))
    try:
        with safe_open(path, framework="numpy") as file:
            assert list(file.keys()) == ["a"]
    except SafetensorError as error:
        pytest.fail(f"the library refuses equal keys now: {error}")
