"""A trained model as a checkpoint in Hugging Face's layout: experts in MXFP4, everything else in BF16."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, GptOssForCausalLM

from demo.architecture import EXPERT_WEIGHTS
from gpt_oss_mxfp4.checkpoint.layout import QUANTIZATION_CONFIG
from gpt_oss_mxfp4.quantize import quantize_array


def export(model: GptOssForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Writes configs, weights and tokenizer into a folder; files of the same names are replaced.

    Args:
        model: float32, its rounding removed: experts are quantized here, by `mxfp4.quantize`.
        tokenizer: from `make_tokenizer`.
        folder: created if absent.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[2] in EXPERT_WEIGHTS:
            # transformers holds experts as [E, K, N]; the checkpoint has the reduced axis last.
            blocks, scales = quantize_array(tensor.mT.contiguous().numpy())
            tensors[f"{name}_blocks"] = torch.from_numpy(blocks)
            tensors[f"{name}_scales"] = torch.from_numpy(scales)
        else:
            tensors[name] = tensor.to(torch.bfloat16)
    config = model.config
    shell = GptOssForCausalLM(copy.deepcopy(config)).to(torch.bfloat16)
    shell.config.quantization_config = QUANTIZATION_CONFIG
    shell.config.swiglu_limit = model.model.layers[0].mlp.experts.limit
    shell.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=[*config.eos_token_id, config.pad_token_id],
        pad_token_id=config.pad_token_id,
    )
    shell.config.eos_token_id = config.eos_token_id[0]
    shell.save_pretrained(folder, state_dict=tensors)
    tokenizer.save_pretrained(folder)
