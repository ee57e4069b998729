"""The tokenizer: nothing is lost, digits and letters come one by one, and it is the same everywhere."""

from __future__ import annotations

import hashlib
import os
import random
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from demo.tasks import TASKS, draw
from demo.tokenizer import make_tokenizer
from gpt_oss_mxfp4.options import DEMO_MODEL

IDS_OF_GPT_OSS = {
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
    "<|endofprompt|>": 200018,
}
"""Special tokens of the published models; those without a use are left out here."""

TOKENIZER = make_tokenizer()

TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                *(*IDS_OF_GPT_OSS, "<|", "|>", "<|nothing|>"),
                *(" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\0"),
                *("user", " user", " the", "the", "'s", " '"),
                *("12", " ½", "é", "e\u0301", "灯台", "👩\u200d🚀"),
            ]
        )
    ).map("".join),
)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def tokens(text: str) -> list[str]:
    """Tokens as they are read: the vocabulary writes a space before a word as Ġ."""
    return [token.replace("Ġ", " ") for token in TOKENIZER.convert_ids_to_tokens(encode(text))]


@settings(deadline=None)  # tests do not time
@given(TEXTS)
def test_decoding_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@settings(deadline=None)  # tests do not time
@given(TEXTS)
def test_no_token_is_added_to_a_text(text: str) -> None:
    assert TOKENIZER.encode(text) == encode(text)


@settings(deadline=None)  # tests do not time
@given(st.integers(0), st.sampled_from(["{}", " {}", "{}+1", "a{}b", '"{}"', "{}."]))
def test_digits_come_one_by_one(number: int, around: str) -> None:
    text = around.format(number)
    with_digits = [token for token in tokens(text) if any(map(str.isdigit, token))]
    assert with_digits == [character for character in text if character.isdigit()]


def test_a_sum_is_digits_and_signs() -> None:
    assert tokens("4587+96") == ["4", "5", "8", "7", "+", "9", "6"]
    assert tokens("4587 - 96") == ["4", "5", "8", "7", " -", " ", "9", "6"]


@pytest.mark.parametrize("mark", ['"', "'"])
def test_a_word_between_quotes_comes_letter_by_letter(mark: str) -> None:
    spelled = 0
    for word in words_to_spell():
        if word not in TOKENIZER.get_vocab():
            assert tokens(f"Reverse {mark}{word}{mark}.") == [
                "Reverse",
                f" {mark}",
                *word,
                mark,
                ".",
            ]
            spelled += 1
    assert spelled > 350


def test_a_word_without_quotes_comes_letter_by_letter() -> None:
    spelled = 0
    for word in words_to_spell():
        if f"Ġ{word}" not in TOKENIZER.get_vocab():
            assert tokens(f"Reverse {word}.") == ["Reverse", " ", *word, "."]
            spelled += 1
    assert spelled > 350


def words_to_spell() -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(200)]
    return words + [TASKS["reverse"](rng).question for _ in range(200)]


def test_whole_words_between_quotes_are_those_that_the_format_writes_so() -> None:
    whole = {
        t
        for t in TOKENIZER.get_vocab()
        if t.isascii() and t.isalpha() and t.islower() and len(t) > 1
    }
    assert whole == {
        *(
            "system",
            "developer",
            "user",
            "assistant",
            "analysis",
            "commentary",
            "final",
            "namespace",
            "functions",
        ),
        *("calculator", "expression", "string", "json", "type", "any", "to"),
    }


@pytest.mark.parametrize("task", ["add", "subtract", "recall", "calculate", "chat"])
def test_words_that_are_said_in_training_are_whole(task: str) -> None:
    """Behind a space, or with a capital; a word to spell has neither between quotes."""
    rng = random.Random(0)
    said = set()
    for _ in range(50):
        for message in TASKS[task](rng).messages:
            for text in (message.get("content", ""), message.get("thinking", "")):
                said.update(re.findall(r" [A-Za-z]{2,}|\b[A-Z][a-z]+", text))
    assert len(said) > 5
    assert not {word for word in said if tokens(word) != [word]}


def test_special_tokens_are_one_id_each_and_the_last_of_the_vocabulary() -> None:
    size = len(TOKENIZER)
    by_id = sorted(IDS_OF_GPT_OSS, key=IDS_OF_GPT_OSS.__getitem__)
    assert [encode(token) for token in by_id] == [[size - 10 + i] for i in range(10)]
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(size))
    assert TOKENIZER.get_added_vocab() == {token: size - 10 + i for i, token in enumerate(by_id)}
    assert TOKENIZER.decode(range(size - 10, size), skip_special_tokens=True) == ""


def test_the_ends_of_texts_are_gpt_osss() -> None:
    assert TOKENIZER.bos_token == "<|startoftext|>"
    assert TOKENIZER.eos_token == "<|return|>"
    assert TOKENIZER.pad_token == "<|endoftext|>"


def test_every_byte_is_a_token() -> None:
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= TOKENIZER.get_vocab().keys()


def digest() -> str:
    return hashlib.sha256(make_tokenizer().backend_tokenizer.to_str().encode()).hexdigest()


def test_every_process_makes_the_same_one_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # as if it were not installed
        "import demo.card, demo.questions\n"
        "from tests.demo.test_tokenizer import digest\n"
        "print(digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "1"},  # sets come in another order
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest()


def test_the_shipped_model_has_this_one() -> None:
    shipped = AutoTokenizer.from_pretrained(DEMO_MODEL)
    assert shipped.get_vocab() == TOKENIZER.get_vocab()
    assert shipped.chat_template == TOKENIZER.chat_template


def test_it_survives_being_saved(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(0)
    for _ in range(50):
        conversation = draw(rng, held_out=False)
        texts = [
            t.apply_chat_template(
                conversation.messages, tools=conversation.tools or None, tokenize=False
            )
            for t in (TOKENIZER, loaded)
        ]
        assert texts[0] == texts[1]
        assert loaded.encode(texts[0]) == encode(texts[0])
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.special_tokens_map == TOKENIZER.special_tokens_map
    assert loaded.decode(encode(" a , b 's . n't")) == " a , b 's . n't"
