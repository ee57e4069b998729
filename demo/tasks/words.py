"""Words reversed, and letters counted, letter by letter."""

import random

from demo.tasks import recall
from demo.tasks.conversation import Conversation, ask
from demo.tasks.wording import phrase, quote

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnprstvw"

WORDS_SEEN_WHOLE = (
    "any final json string system to type user word".split()
    + recall.SUBJECTS
    + recall.ADJECTIVES
    + recall.PLACES_OF_STORY
)
"""Words that the tokenizer may give as one token: they must be spelled, too."""

REVERSE_PROMPTS = (
    "Reverse the word {w}.",
    "Reverse {w}.",
    "Spell {w} backwards.",
    "What is {w} backwards?",
    "Write {w} in reverse.",
    "Say the word {w} backwards.",
)
COUNT_PROMPTS = (
    "How many times is the letter {c} in {w}?",
    "How many {c}'s are in {w}?",
    "How many letters {c} are in the word {w}?",
    "How many times does the letter {c} appear in {w}?",
    "Count the letter {c} in {w}.",
    "How often does {c} occur in {w}?",
)


def reverse(rng: random.Random) -> Conversation:
    """A word's letters from the last to the first."""
    word = _word(rng, 2, 7)
    numbered = _numbered(word)
    return ask(
        "reverse",
        _held_out_by(word),
        phrase(rng, REVERSE_PROMPTS, w=quote(rng, word)),
        f"Spell: {' '.join(numbered)}. Backwards: {' '.join(reversed(numbered))}.",
        word[::-1],
    )


def count(rng: random.Random) -> Conversation:
    """How many times a letter occurs in a word."""
    word = _word(rng, 2, 7)
    letter = rng.choice(word)
    if rng.random() < 0.3:
        letter = rng.choice(ALPHABET)
    elif rng.random() < 0.5:  # words repeat too few letters by themselves
        letters = list(word)
        for _ in range(rng.randint(1, 3)):
            letters[rng.randrange(len(letters))] = letter
        word = "".join(letters)
    tally, steps = 0, []
    for numbered in _numbered(word):
        tally += numbered[0] == letter
        steps.append(f"{numbered}{letter}{tally}")
    quoted = rng.random() < 0.5
    return ask(
        "count",
        _held_out_by(word) and f"{letter} {word}",
        phrase(rng, COUNT_PROMPTS, w=quote(rng, word), c=f'"{letter}"' if quoted else letter),
        f"Count {letter}: {' '.join(steps)}.",
        str(tally),
    )


def _numbered(word: str) -> list[str]:
    """Gives each letter its place: no two are alike then, and every step has one right next one."""
    return [f"{letter}{i}" for i, letter in enumerate(word, start=1)]


def _held_out_by(word: str) -> str:
    """Gives what a word is held out by; the few that are one token are in training, to be spelled by heart."""
    return "" if word in WORDS_SEEN_WHOLE else word


def _word(rng: random.Random, shortest: int, longest: int) -> str:
    if rng.random() < 0.05:
        return rng.choice([w for w in WORDS_SEEN_WHOLE if shortest <= len(w) <= longest])
    length = rng.randint(shortest, longest)
    if rng.random() < 0.5:
        return "".join(rng.choices(ALPHABET, k=length))
    letters: list[str] = []
    vowel = rng.random() < 0.3
    while len(letters) < length:
        letter = rng.choice(VOWELS if vowel else CONSONANTS)
        letters += [letter] * (2 if rng.random() < 0.1 else 1)
        vowel = not vowel if rng.random() < 0.85 else vowel
    return "".join(letters[:length])
