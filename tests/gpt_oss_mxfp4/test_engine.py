"""What the engine makes of a prompt, and what it refuses before MAX compiles anything."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from gpt_oss_mxfp4.checkpoint.checkpoint import Checkpoint, open_checkpoint
from gpt_oss_mxfp4.engine import encode_prompt
from gpt_oss_mxfp4.options import Refused
from tests.golden import CHECKPOINT

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message.role }}<|message|>{{ message.content }}"
    "<|end|>{% endfor %}<|start|>assistant"
)


@pytest.fixture
def copy(tmp_path: Path) -> Checkpoint:
    for file in CHECKPOINT.iterdir():
        shutil.copy(file, tmp_path)
    return open_checkpoint(tmp_path)


def test_a_prompt_is_encoded_as_it_is() -> None:
    prompt = encode_prompt(open_checkpoint(CHECKPOINT), "The ships, 灯台")
    assert prompt.tokenizer.decode(prompt.ids) == "The ships, 灯台"


def test_a_chat_template_makes_it_the_users_message(copy: Checkpoint) -> None:
    (copy.folder / "chat_template.jinja").write_text(TEMPLATE)
    prompt = encode_prompt(copy, "Hello")
    text = prompt.tokenizer.decode(prompt.ids)
    assert text == "<|start|>user<|message|>Hello<|end|><|start|>assistant"


def test_a_broken_chat_template_is_refused(copy: Checkpoint) -> None:
    (copy.folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(Refused, match="must hold a chat template that works"):
        encode_prompt(copy, "Hello")


def test_a_missing_tokenizer_is_refused(copy: Checkpoint) -> None:
    for file in copy.folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(Refused, match="must hold the model's tokenizer files"):
        encode_prompt(copy, "Hello")


def test_another_models_tokenizer_is_refused(copy: Checkpoint) -> None:
    smaller = dataclasses.replace(copy.config, vocab_size=32)
    with pytest.raises(Refused, match="must hold this model's tokenizer, got token"):
        encode_prompt(dataclasses.replace(copy, config=smaller), "Hello")
