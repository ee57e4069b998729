"""BF16 experts and MXFP4 ones: transposed, rounded as the reference rounds, read by transformers to the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.convert.conversion import plan_conversion
from gpt_oss_mxfp4.convert.plan import gathered
from gpt_oss_mxfp4.convert.source import Source
from tests.gpt_oss_mxfp4.checkpoint.small import config_fields
from tests.gpt_oss_mxfp4.convert.folders import (
    Tensor,
    Tensors,
    assert_same_tensors,
    bf16,
    convert,
    original_config,
    read_tensors,
    refusal,
    small_model,
    u8,
    write_checkpoint,
)
from tests.reference import mxfp4
from tests.reference.bfloat16 import decode_bfloat16, encode_bfloat16

GATE_UP = "model.layers.1.mlp.experts.gate_up_proj"
DOWN = "model.layers.0.mlp.experts.down_proj"


def as_bf16(tensors: Mapping[str, Tensor], rng: np.random.Generator | None = None) -> Tensors:
    """The experts as transformers has them, [E, in, out]; random ones where numbers are to be drawn."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        base = name.removesuffix("_blocks")
        if base != name:
            values = mxfp4.dequantize(tensor.data, tensors[f"{base}_scales"].data).swapaxes(1, 2)
            if rng is not None:
                values = rng.standard_normal(values.shape) * np.exp2(
                    rng.integers(-9, 9, values.shape)
                )
            plain[base] = bf16(values)
        elif not name.endswith("_scales"):
            plain[name] = tensor
    return plain


def bf16_config(**changes: object) -> dict[str, object]:
    return config_fields(quantization_config=None, **changes)


@pytest.fixture
def model(rng: np.random.Generator) -> Tensors:
    return small_model(rng)


def test_mxfp4_becomes_bf16_exactly_and_back_to_the_same_bytes(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reference quantizes as the op does, so each group has the one scale that rounding would choose."""
    source = write_checkpoint(tmp_path / "mxfp4", model, config_fields(), files=2)
    convert(capfd, source, "--to", "bf16", "--output", tmp_path / "bf16")
    plain = read_tensors(tmp_path / "bf16")
    assert_same_tensors(plain, as_bf16(model))
    assert "quantization_config" not in json.loads((tmp_path / "bf16/config.json").read_text())
    err = convert(capfd, tmp_path / "bf16", "--output", tmp_path / "again")
    assert_same_tensors(read_tensors(tmp_path / "again"), model)
    assert f"{GATE_UP}_blocks              0         0.0000\n" in err


def test_scales_that_rounding_would_not_choose_come_back_with_the_same_values(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Groups of small codes get a smaller scale, and groups of zeros scale 0; zeros keep their signs."""
    blocks, scales = model[f"{DOWN}_blocks"].data.copy(), model[f"{DOWN}_scales"].data.copy()
    blocks[0, 0] = 0x21  # 0.5 and 1
    blocks[0, 1] = 0x80  # 0 and -0
    blocks[0, 2], scales[0, 2] = 0x21, 0  # nowhere lower to go
    blocks[1, 0], scales[1, 0] = 0x77, 252  # the largest that bfloat16 holds
    model |= {f"{DOWN}_blocks": u8(blocks), f"{DOWN}_scales": u8(scales)}
    source = write_checkpoint(tmp_path / "mxfp4", model, config_fields())
    convert(capfd, source, "--to", "bf16", "--output", tmp_path / "bf16")
    convert(capfd, tmp_path / "bf16", "--output", tmp_path / "again")
    again = read_tensors(tmp_path / "again")
    got = mxfp4.dequantize(again[f"{DOWN}_blocks"].data, again[f"{DOWN}_scales"].data)
    want = mxfp4.dequantize(blocks, scales)
    np.testing.assert_array_equal(got.view(np.uint64), want.view(np.uint64))
    assert again[f"{DOWN}_scales"].data[0, 0, 0] == scales[0, 0, 0] - 2
    assert again[f"{DOWN}_scales"].data[0, 1, 0] == 0
    assert again[f"{DOWN}_scales"].data[0, 2, 0] == 0
    others = [name for name in model if not name.startswith(DOWN)]
    assert_same_tensors({n: again[n] for n in others}, {n: model[n] for n in others})


def test_bf16_experts_are_rounded_as_the_reference_rounds(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    plain = as_bf16(model, rng)
    source = write_checkpoint(tmp_path / "bf16", plain, bf16_config(), files=3)
    report = tmp_path / "report.json"
    err = convert(capfd, source, "--output", tmp_path / "mxfp4", "--json", report)
    made = read_tensors(tmp_path / "mxfp4")
    told = json.loads(report.read_text())["tensors"]
    for base in (GATE_UP, DOWN):
        x = decode_bfloat16(plain[base].data).swapaxes(1, 2).astype(np.float64)
        blocks, scales = mxfp4.quantize(x)
        np.testing.assert_array_equal(made[f"{base}_blocks"].data, blocks)
        np.testing.assert_array_equal(made[f"{base}_scales"].data, scales)
        error = x - mxfp4.dequantize(blocks, scales)
        loss = told[f"{base}_blocks"]
        assert loss["max_abs"] == np.abs(error).max()
        assert loss["rms_relative"] == pytest.approx(
            np.sqrt((error**2).sum() / (x**2).sum()), rel=1e-12
        )
        assert f"{loss['max_abs']:13.3g}  {loss['rms_relative']:13.4f}\n" in err
    assert "max_abs" not in told[f"{GATE_UP}_scales"]
    assert open_checkpoint(tmp_path / "mxfp4").notes == ()


def test_transformers_reads_what_is_written_to_the_same_bits(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str], rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    source = write_checkpoint(tmp_path / "bf16", as_bf16(model, rng), bf16_config())
    convert(capfd, source, "--output", tmp_path / "mxfp4")
    convert(capfd, tmp_path / "mxfp4", "--to", "bf16", "--output", tmp_path / "ours")
    packed, ours = read_tensors(tmp_path / "mxfp4"), read_tensors(tmp_path / "ours")
    for base in (GATE_UP, DOWN):
        theirs = convert_moe_packed_tensors(
            torch.from_numpy(packed[f"{base}_blocks"].data.copy()),
            torch.from_numpy(packed[f"{base}_scales"].data.copy()),
        )
        assert theirs.dtype == torch.bfloat16
        np.testing.assert_array_equal(theirs.view(torch.uint16).numpy(), ours[base].data)


def test_a_fine_tune_that_transformers_saved_is_taken_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tests.make_checkpoint import SIZES

    config = transformers.GptOssConfig(**SIZES, swiglu_limit=7.0, pad_token_id=1, eos_token_id=2)
    torch.manual_seed(4)
    model = transformers.GptOssForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "saved", max_shard_size="3MB")
    convert(capfd, tmp_path / "saved", "--output", tmp_path / "mxfp4")
    made = read_tensors(tmp_path / "mxfp4")
    for name, parameter in model.named_parameters():
        if name.endswith((".gate_up_proj", ".down_proj")):
            blocks, scales = mxfp4.quantize(parameter.detach().float().mT.numpy())
            np.testing.assert_array_equal(made.pop(f"{name}_blocks").data, blocks, err_msg=name)
            np.testing.assert_array_equal(made.pop(f"{name}_scales").data, scales, err_msg=name)
        else:
            bits = parameter.detach().view(torch.uint16).numpy()
            np.testing.assert_array_equal(made.pop(name).data, bits, err_msg=name)
    assert not made
    assert open_checkpoint(tmp_path / "mxfp4").config.eos_token_ids == (2,)


def test_bf16_experts_go_to_openai_s_layout_too(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_checkpoint(tmp_path / "bf16", as_bf16(model), bf16_config())
    report = tmp_path / "report.json"
    arguments = ("--to", "original", "--output", tmp_path / "original", "--json", report)
    convert(capfd, source, *arguments)
    told = json.loads(report.read_text())["tensors"]
    assert told["block.1.mlp.mlp1_weight.blocks"]["max_abs"] == 0
    made = read_tensors(tmp_path / "original")
    np.testing.assert_array_equal(
        made["block.1.mlp.mlp1_weight.blocks"].data, model[f"{GATE_UP}_blocks"].data
    )
    convert(capfd, tmp_path / "original", "--to", "bf16", "--output", tmp_path / "back")
    assert_same_tensors(read_tensors(tmp_path / "back"), as_bf16(model))


def test_an_expert_is_rounded_once_and_its_scales_are_made_alone_too(
    model: Tensors, tmp_path: Path
) -> None:
    """Alone after a kill between two files, one with the blocks and one with the scales."""
    source = write_checkpoint(tmp_path / "bf16", as_bf16(model), bf16_config())
    rounded: list[tuple[int, ...]] = []

    def quantize(x: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rounded.append(x.shape)
        return mxfp4.quantize(x)

    for wanted, times in (("", 8), ("_blocks", 8), ("_scales", 8)):
        rounded.clear()
        conversion = plan_conversion(source, "mxfp4", None, None, quantize)
        with Source(conversion.files) as files:
            for output in conversion.outputs:
                if output.name.endswith(wanted):
                    made = b"".join(
                        gathered(piece, files.read).tobytes() for piece in output.pieces
                    )
                    assert made == model[output.name].data.tobytes()
        assert len(rounded) == times


@pytest.mark.parametrize("zeros", [1, 2])
def test_what_experts_of_zeros_lose_is_nothing(
    model: Tensors, tmp_path: Path, rng: np.random.Generator, zeros: int
) -> None:
    plain = as_bf16(model, rng)
    plain[DOWN].data[:zeros] = 0
    source = write_checkpoint(tmp_path / "bf16", plain, bf16_config())
    conversion = plan_conversion(source, "mxfp4", None, None, mxfp4.quantize)
    [blocks] = [output for output in conversion.outputs if output.name == f"{DOWN}_blocks"]
    with Source(conversion.files) as files:
        for piece in blocks.pieces:
            gathered(piece, files.read)
    assert blocks.loss is not None
    loss = blocks.loss()
    assert all(loss.values()) == any(loss.values()) == (zeros < 2)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_bf16_experts_that_are_not_finite_are_refused(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str], number: float
) -> None:
    plain = as_bf16(model)
    plain[GATE_UP].data[1, 5, 9] = encode_bfloat16(number)
    source = write_checkpoint(tmp_path / "bf16", plain, bf16_config())
    message = refusal(capfd, source, "--output", tmp_path / "mxfp4")
    assert message == (
        f"{source}: {GATE_UP} must be finite in bfloat16, expert 1 is not in 1 of 64 rows, the first of them 9."
        " The weights are damaged or of a model that diverged: take another copy."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["bf16"]


@pytest.mark.parametrize(("scale", "code"), [(255, 0), (254, 4), (253, 6)])
def test_mxfp4_experts_that_bfloat16_cannot_hold_are_refused(
    model: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str], scale: int, code: int
) -> None:
    blocks, scales = model[f"{DOWN}_blocks"].data.copy(), model[f"{DOWN}_scales"].data.copy()
    scales[1, 7], blocks[1, 7] = scale, code
    model |= {f"{DOWN}_blocks": u8(blocks), f"{DOWN}_scales": u8(scales)}
    source = write_checkpoint(tmp_path / "mxfp4", model, config_fields())
    plain = ("--to", "bf16", "--output", tmp_path / "bf16", "--shard-gb", "1e-5")
    message = refusal(capfd, source, *plain)
    assert f"{DOWN} must be finite in bfloat16, expert 1 is not in 1 of 64 rows" in message
    # No run could go on from the files that were written before.
    assert [path.name for path in tmp_path.iterdir()] == ["mxfp4"]
    # Bytes that are only moved are kept, whatever they are.
    convert(capfd, source, "--to", "original", "--output", tmp_path / "original")
    made = read_tensors(tmp_path / "original")["block.0.mlp.mlp2_weight.scales"]
    np.testing.assert_array_equal(made.data, scales)
    assert json.loads((tmp_path / "original/config.json").read_text()) == original_config()
