"""A demo checkpoint in transformers and in this package: the same questions, answers compared token by token."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm

from demo.card import write_card
from demo.max_decoder import decode_in_max
from demo.questions import accuracy, judge, standard_questions
from demo.torch_decoder import compare, decode_in_torch


def evaluate(folder: Path) -> dict[str, Any]:
    """Measures a checkpoint, completes its `accuracy.json` and writes its model card.

    Args:
        folder: from `scripts/train_demo.py`.

    Returns:
        The content of `accuracy.json`: shares of right answers for each way of running the model, and every
        answer in which transformers and this package differ, with transformers' logit margin where it begins.
    """
    report: dict[str, Any] = json.loads((folder / "accuracy.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    questions = standard_questions()
    model = load_in_transformers(folder)
    reference = judge(tokenizer, questions, decode_in_torch(model))
    ours = judge(
        tokenizer,
        questions,
        lambda prompts: tqdm(decode_in_max(folder, prompts), "questions", len(prompts)),
    )
    differences = compare(model, tokenizer, reference, ours)
    report["accuracy"]["transformers"] = accuracy(reference)
    report["accuracy"]["gpt_oss_mxfp4"] = accuracy(ours)
    report["equal_answers"] = len(questions) - len(differences)
    report["differences"] = [asdict(difference) for difference in differences]
    report["transformers"] = transformers.__version__
    (folder / "accuracy.json").write_text(json.dumps(report, indent=2) + "\n")
    write_card(report, folder)
    return report


def load_in_transformers(folder: Path) -> transformers.GptOssForCausalLM:
    """Loads a checkpoint, its experts dequantized, to compute in float32 throughout."""
    model = transformers.GptOssForCausalLM.from_pretrained(
        folder,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        dtype=torch.float32,
        attn_implementation="eager",
    )
    return model.to(torch.float32).eval()  # experts come in BF16 even so (NOTES F6)
