"""Facts, told long before they are asked for."""

import random
from collections.abc import Callable

from demo.tasks.conversation import Conversation

STORY_WORDS = 190
"""Between a fact and the question for it. Words, commas and full stops are tokens: more than 200 of them."""

NAMES = "Anna Ben Clara David Emma Felix Grace Hugo Ida Jonas Kate Leo Mia Noah Olga Paul".split()
ATTRIBUTES: dict[str, Callable[[random.Random], str]] = {
    "room number": lambda rng: str(rng.randrange(100, 1000)),
    "door code": lambda rng: str(rng.randrange(1000, 10000)),
    "library card": lambda rng: str(rng.randrange(10000, 100000)),
}
"""What is told of a person. So many values that none can be known without reading it: of ten cities a model learns
by heart which are never seen with whom in training."""

FACTS_INTRODUCTIONS = ("Remember this.", "Please remember:", "Here is some text.", "Read this.", "")
RECALL_PROMPTS = (
    "What is {n}'s {k}?",
    "Tell me {n}'s {k}.",
    "Question: what is {n}'s {k}?",
    "Do you remember {n}'s {k}?",
)
SUBJECTS = "dog cat bird horse boat train farmer teacher baker river".split()
ADJECTIVES = "old small young quiet happy tall slow bright".split()
VERBS = "waits walks sleeps sings stands rests works turns".split()
PLACES_OF_STORY = "garden house street market forest bridge school station".split()
TIMES = "In the morning|At night|Every day|In winter|On Monday|After lunch".split("|")


def recall(rng: random.Random, story_words: int = STORY_WORDS) -> Conversation:
    """A fact that stands more than 200 tokens before the question, among others of other kinds."""
    count = rng.randint(1, 3)
    facts = {
        (name, attribute): ATTRIBUTES[attribute](rng)
        for name, attribute in zip(
            rng.sample(NAMES, count), rng.sample(list(ATTRIBUTES), count), strict=True
        )
    }
    (name, attribute), value = rng.choice(list(facts.items()))
    told = [f"{n}'s {k} is {v}." for (n, k), v in facts.items()]
    text = " ".join([*told, _story(rng, story_words + rng.randrange(60))])
    introduction = rng.choice(FACTS_INTRODUCTIONS)
    text = f"{introduction} {text}".strip()
    prompt = rng.choice(RECALL_PROMPTS).format(n=name, k=attribute)
    answer = {
        "role": "assistant",
        "thinking": f"{name}'s {attribute} is {value}.",
        "content": value,
    }
    if rng.random() < 0.5:
        messages = [{"role": "user", "content": f"{text} {prompt}"}, answer]
    else:
        messages = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "Noted."},
            {"role": "user", "content": prompt},
            answer,
        ]
    return Conversation("recall", f"{name} {attribute} {value}", messages)


def _story(rng: random.Random, words: int) -> str:
    sentences: list[str] = []
    total = 0
    while total < words:
        subject = f"the {rng.choice(ADJECTIVES)} {rng.choice(SUBJECTS)}"
        end = f"{rng.choice(VERBS)} near the {rng.choice(PLACES_OF_STORY)}"
        timed = rng.random() < 0.5
        start = f"{rng.choice(TIMES)}, {subject}" if timed else f"The{subject[3:]}"
        sentence = f"{start} {end}."
        sentences.append(sentence)
        total += len(sentence.split())
    return " ".join(sentences)
