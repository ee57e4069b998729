"""The demo model's tokenizer: byte-level, with whole words for what it is taught to talk about.

It has no merges. A word that is in the vocabulary is one token (``ignore_merges``); any other is spelled in
bytes, so that a word to be reversed arrives letter by letter, and numbers digit by digit.
"""

import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from demo.tasks import prose

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
    "<|endofprompt|>",
)
"""The special tokens of gpt-oss, in their order, as the last ids of the vocabulary."""

CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"

PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]|\s"
"""A word or a mark, each with the space before it; a digit; a space or line break."""

HARMONY_WORDS = """
system developer user assistant analysis commentary final namespace functions calculator expression string json type any
to
"""
"""Words that the format itself writes without a space before them."""

HARMONY_TEXT = """
Reasoning: low medium high

Calls to these tools must go to the commentary channel: 'functions'.
# Instructions
# Tools
## functions
namespace functions { // Evaluates an arithmetic expression. Like
type calculator = (_: { // expression: string, }) => any; } // namespace functions
commentary to=functions.calculator <|constrain|>json {"expression": "
"""
"""The words of the chat template."""


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Makes the tokenizer, with its chat template; the same at every call."""
    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [
        piece
        for piece, _ in splitter.pre_tokenize_str(prose() + "\n" + HARMONY_TEXT)
        # A lower-case word with no space before it stands between quotes: it is spelled, not known whole.
        if not (piece.isalpha() and piece.islower())
    ]
    for word in [piece.strip() for piece in pieces if piece.strip().istitle()]:
        pieces += [word, f" {word}"]
    pieces += HARMONY_WORDS.split()
    pieces += [f" {letter}" for letter in string.ascii_lowercase]
    words = sorted({byte_level.pre_tokenize_str(piece)[0][0] for piece in pieces})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(word for word in words if len(word) > 1)]
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(vocabulary)}, [], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    return fast
