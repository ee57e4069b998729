"""How a question is put into words."""

import random


def phrase(rng: random.Random, prompts: tuple[str, ...], **values: object) -> str:
    """Words a question, sometimes as people do who are in a hurry, or polite."""
    text = rng.choice(prompts)
    if text[-1] in ".?" and rng.random() < 0.12:
        text = text[:-1].rstrip()
    if text[0].isupper() and rng.random() < 0.12:
        text = text[0].lower() + text[1:]
        if rng.random() < 0.5 and not text.startswith(("what", "how")):
            text = f"Please {text}"
    return text.format(**values)


def quote(rng: random.Random, word: str) -> str:
    """Puts a word between quotation marks of some kind, or none."""
    mark = rng.choice(('"', '"', "'", ""))
    return f"{mark}{word}{mark}"


def number(rng: random.Random, max_digits: int) -> int:
    """Draws a number of digits, then a number that has as many."""
    digits = rng.randint(1, max_digits)
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)
