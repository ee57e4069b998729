"""Questions and answers: each answer is worked out again from the words of the question alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from demo.tasks import SHARES, TASKS, Conversation, Message, draw
from demo.tasks.calculator import CALCULATOR
from demo.tasks.words import WORDS_SEEN_WHOLE

PLEASE = r"(?:please )?"
WORD = r"""(?P<mark>["']?)(?P<word>[a-z]+)(?P=mark)"""
LETTER = r"""(?P<quote>"?)(?P<letter>[a-z])(?P=quote)(?:'s)?"""

REVERSE = re.compile(
    rf"{PLEASE}(?:reverse(?: the word)?|spell|what is|write|say the word) {WORD}"
    r"(?: backwards| in reverse)?[.?]?",
    re.IGNORECASE,
)
COUNT = re.compile(
    rf"{PLEASE}(?:how many times (?:is|does) the letter|how many(?: letters)?|count the letter|how often does) "
    rf"{LETTER}(?: are| appear| occur)? in (?:the word )?{WORD}[.?]?",
    re.IGNORECASE,
)
EXPRESSION = re.compile(r"(\d+) ?([-+*/]) ?(\d+)")
FACT = re.compile(r"(\w+)'s ([a-z]+ [a-z]+) is (\w+)\.")
RECALL = re.compile(
    r"(?:what is|tell me|do you remember) (\w+)'s ([a-z]+ [a-z]+)[?.]$", re.IGNORECASE
)

COLUMN = re.compile(r"(\w+) (\d)([-+])(\d)\3(\d)=(\d) (carry|borrow) (\d)")


def held_out_by(word: str, question: str) -> str:
    """A word that the tokenizer gives as one token can only be spelled by heart: it is never held out."""
    return "" if word in WORDS_SEEN_WHOLE else question


def drawn(task: str, count: int = 200) -> list[Conversation]:
    rng = random.Random(task)
    return [TASKS[task](rng) for _ in range(count)]


def user_texts(conversation: Conversation) -> list[str]:
    return [m["content"] for m in conversation.messages if m["role"] == "user"]


def asked(conversation: Conversation) -> str:
    return user_texts(conversation)[-1]


def final(conversation: Conversation) -> str:
    return conversation.messages[-1]["content"]


def thought(conversation: Conversation) -> str:
    return conversation.messages[-1]["thinking"]


def match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    assert found, text
    return found


def minuend_and_subtrahend(text: str) -> tuple[int, int]:
    a, b = map(int, re.findall(r"\d+", text))
    return (b, a) if " from " in text else (a, b)


def is_right(conversation: Conversation) -> None:
    """Holds the last answer against what the last question, and no other part of the code, asks for."""
    ANSWERED[conversation.task](conversation)


def add_is_right(conversation: Conversation) -> None:
    a, b = map(int, re.findall(r"\d+", asked(conversation)))
    assert conversation.question == f"{a} {b}"
    assert final(conversation) == str(a + b)


def subtract_is_right(conversation: Conversation) -> None:
    a, b = minuend_and_subtrahend(asked(conversation))
    assert conversation.question == f"{a} {b}"
    assert final(conversation) == str(a - b)


def reverse_is_right(conversation: Conversation) -> None:
    word = match(REVERSE, asked(conversation))["word"]
    assert conversation.question == held_out_by(word, word)
    assert list(final(conversation)) == [word[-1 - i] for i in range(len(word))]


def count_is_right(conversation: Conversation) -> None:
    found = match(COUNT, asked(conversation))
    letter, word = found["letter"], found["word"]
    assert conversation.question == held_out_by(word, f"{letter} {word}")
    assert final(conversation) == str(len(re.findall(letter, word)))


def recall_is_right(conversation: Conversation) -> None:
    told = [fact for text in user_texts(conversation) for fact in FACT.findall(text)]
    facts = {(name, attribute): value for name, attribute, value in told}
    # Each of another person, and of another kind.
    assert len({name for name, _ in facts}) == len({kind for _, kind in facts}) == len(told)
    asks = RECALL.search(asked(conversation))
    assert asks, asked(conversation)
    name, attribute = asks.groups()
    assert conversation.question == f"{name} {attribute} {facts[name, attribute]}"
    assert final(conversation) == facts[name, attribute]


def calculate_is_right(conversation: Conversation) -> None:
    a, operator, b = EXPRESSION.findall(asked(conversation))[0]
    call, output, answer = conversation.messages[-3:]
    (made,) = call["tool_calls"]
    assert (made["type"], made["function"]["name"]) == ("function", "calculator")
    assert json.loads(made["function"]["arguments"]) == {"expression": f"{a} {operator} {b}"}
    assert conversation.question == f"{a} {operator} {b}"
    assert conversation.tools == [CALCULATOR]
    said = json.loads(output["content"])
    said = said["result"] if isinstance(said, dict) else said
    assert answer["content"] == str(said)


def chat_is_right(conversation: Conversation) -> None:
    text, answer = asked(conversation), final(conversation)
    expression = EXPRESSION.search(text)
    if expression:
        a, operator, b = expression.groups()
        assert operator in "*/"
        assert conversation.question == f"{a} {operator} {b}"
        assert conversation.tools == []
        assert answer.startswith("I need a calculator")
    elif FACT.search(text):
        assert answer == "Noted."
    elif text.strip("!.?") in ("Hello", "Hi", "Good morning"):
        assert answer.startswith("Hello! I can")
    elif text.startswith(("Who are", "What are", "What is your name")):
        assert answer.startswith("I am a very small gpt-oss.")
    elif text.startswith("Thank"):
        assert answer == "You are welcome."
    else:
        assert re.search(r"[Hh]elp|What can you do", text)
        assert answer.startswith("I can")


ANSWERED: dict[str, Callable[[Conversation], None]] = {
    "add": add_is_right,
    "subtract": subtract_is_right,
    "reverse": reverse_is_right,
    "count": count_is_right,
    "recall": recall_is_right,
    "calculate": calculate_is_right,
    "chat": chat_is_right,
}


def test_every_task_has_a_share_and_a_check() -> None:
    assert TASKS.keys() == SHARES.keys() == ANSWERED.keys()
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_right(task: str) -> None:
    for conversation in drawn(task):
        assert conversation.task == task
        is_right(conversation)


def test_the_answer_is_right_whatever_was_said_before() -> None:
    rng = random.Random(0)
    conversations = [draw(rng, held_out=False) for _ in range(800)]
    for conversation in conversations:
        is_right(conversation)
    assert {c.task for c in conversations} == TASKS.keys()
    assert {c.effort for c in conversations} == {"low", "medium", "high"}
    first_roles = [c.messages[0]["role"] for c in conversations]
    assert 0 < first_roles.count("system") < len(conversations) / 4
    earlier = [c for c in conversations if c.task != "recall" and len(user_texts(c)) > 1]
    assert 0 < len(earlier) < len(conversations) / 4


def test_an_earlier_turn_is_a_question_and_its_answer() -> None:
    rng = random.Random(1)
    sums = 0
    for _ in range(800):
        conversation = draw(rng, held_out=False, tasks={"reverse": 1.0})
        messages = [m for m in conversation.messages if m["role"] != "system"]
        if len(messages) > 2:
            question, answer, *_ = messages
            assert (question["role"], answer["role"]) == ("user", "assistant")
            assert "thinking" not in answer
            if re.fullmatch(r"(\d+) ?\+ ?(\d+)", question["content"]):
                a, b = map(int, re.findall(r"\d+", question["content"]))
                assert answer["content"] == str(a + b)
                sums += 1
    assert sums > 0


def test_differences_of_both_signs_and_zero_digits_are_asked_for() -> None:
    answers = [int(final(c)) for c in drawn("subtract")]
    assert min(answers) < -999
    assert max(answers) > 999
    assert any(-10 < answer < 10 for answer in answers)


def columns(text: str, a: int, b: int) -> None:
    """Holds the columns of a sum or a difference, ones first, against the numbers."""
    found = COLUMN.findall(text)
    assert [place for place, *_ in found] == ["ones", "tens", "hundreds", "thousands"]
    carried = 0
    for i, (_, x, sign, y, carry_in, digit, name, carry_out) in enumerate(found):
        assert (int(x), int(y)) == (a // 10**i % 10, b // 10**i % 10)
        assert int(carry_in) == carried
        carried = int(carry_out)
        assert name == {"+": "carry", "-": "borrow"}[sign]
        if sign == "+":
            assert int(x) + int(y) + int(carry_in) == int(digit) + 10 * carried
        else:
            assert int(x) - int(y) - int(carry_in) == int(digit) - 10 * carried
        assert carried in (0, 1)


def test_the_columns_of_a_sum_are_right() -> None:
    for conversation in drawn("add"):
        a, b = map(int, re.findall(r"\d+", asked(conversation)))
        head, _, rest = thought(conversation).partition(": ")
        steps, _, last = rest.partition(". Sum ")
        assert head == f"{a:04d} + {b:04d}"
        columns(steps, a, b)
        assert re.fullmatch(r"\d{5}\.", last)
        assert int(last[:-1]) == a + b


def compared(text: str, a: int, b: int) -> None:
    """Holds the digits of two numbers, compared from the left up to the first that differ, against the numbers."""
    steps = text.split()
    for i, step in enumerate(steps):
        x, y = f"{a:04d}"[i], f"{b:04d}"[i]
        assert step == x + {-1: "<", 0: "=", 1: ">"}[(x > y) - (x < y)] + y
        assert (x == y) or i == len(steps) - 1
    assert a != b or len(steps) == 4
    assert a == b or "=" not in steps[-1]


def test_the_columns_of_a_difference_are_right() -> None:
    verdicts = set()
    for conversation in [*drawn("subtract"), equal_numbers()]:
        a, b = minuend_and_subtrahend(asked(conversation))
        text = thought(conversation)
        form = r"(\d{4}) - (\d{4})\? ([^a-z]+) (\w+)\. (Minus )?(\d{4}) - (\d{4}): (.+)\. Difference (\d{4})\."
        found = re.fullmatch(form, text)
        assert found, text
        first, second, comparison, verdict, minus, larger, smaller, steps, difference = (
            found.groups()
        )
        assert (int(first), int(second)) == (a, b)
        compared(comparison, a, b)
        assert verdict == ("less" if a < b else "more" if a > b else "equal")
        assert bool(minus) == (a < b)
        assert (int(larger), int(smaller)) == (max(a, b), min(a, b))
        columns(steps, int(larger), int(smaller))
        assert steps.endswith("borrow 0")
        assert int(difference) == abs(a - b)
        verdicts.add(verdict)
    assert verdicts == {"less", "more", "equal"}


def equal_numbers() -> Conversation:
    rng = random.Random(0)
    conversation = TASKS["subtract"](rng)
    while final(conversation) != "0":
        conversation = TASKS["subtract"](rng)
    return conversation


def numbered(word: str) -> list[str]:
    return [f"{word[i]}{i + 1}" for i in range(len(word))]


def test_the_letters_of_a_word_are_numbered_before_they_are_turned_round() -> None:
    for conversation in drawn("reverse"):
        letters = numbered(match(REVERSE, asked(conversation))["word"])
        spelled, _, backwards = thought(conversation).partition(". ")
        assert spelled.split() == ["Spell:", *letters]
        assert backwards.rstrip(".").split() == ["Backwards:", *letters[::-1]]


def test_the_tally_runs_along_the_word() -> None:
    counts = set()
    for conversation in drawn("count"):
        found = match(COUNT, asked(conversation))
        letter, word = found["letter"], found["word"]
        head, _, steps = thought(conversation).partition(": ")
        assert head == f"Count {letter}"
        assert steps.rstrip(".").split() == [
            f"{word[i]}{i + 1}{letter}{word[: i + 1].count(letter)}" for i in range(len(word))
        ]
        counts.add(final(conversation))
    assert {"0", "1", "2", "3"} <= counts


def test_the_calculator_is_believed_and_not_checked() -> None:
    wrong = 0
    for conversation in drawn("calculate"):
        a, operator, b = conversation.question.split()
        says = final(conversation)
        assert thought(conversation) == f"It says {says}."
        results = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}
        wrong += operator in results and says != str(results[operator])
    assert 10 < wrong < 100


def test_a_fact_stands_more_than_200_tokens_before_its_question(tokenizer: Any) -> None:
    for conversation in drawn("recall"):
        text = tokenizer.apply_chat_template(
            conversation.messages[:-1], tokenize=False, add_generation_prompt=True
        )
        name, attribute = RECALL.search(asked(conversation)).groups()  # type: ignore[union-attr]
        fact = f"{name}'s {attribute} is {final(conversation)}."
        assert text.count(fact) == 1
        question = RECALL.search(asked(conversation))[0]  # type: ignore[index]
        between = text[text.index(fact) + len(fact) : text.rindex(question)]
        assert len(tokenizer.encode(between, add_special_tokens=False)) > 200


def test_facts_have_too_many_values_to_be_known_without_being_told() -> None:
    values: dict[str, set[str]] = {}
    for conversation in drawn("recall", 3000):
        for name_and_kind in [FACT.findall(text) for text in user_texts(conversation)]:
            for _, kind, value in name_and_kind:
                values.setdefault(kind, set()).add(value)
    assert {min(map(len, v)) for v in values.values()} == {3, 4, 5}
    assert all(len(v) > 500 for v in values.values())


def test_equal_seeds_draw_equal_conversations() -> None:
    def draws(seed: int) -> list[Conversation]:
        rng = random.Random(seed)
        return [draw(rng, held_out=False) for _ in range(50)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_training_never_draws_a_question_that_is_held_out() -> None:
    rng = random.Random(0)
    assert not any(draw(rng, held_out=False).held_out for _ in range(1000))
    assert all(draw(rng, held_out=True).held_out for _ in range(200))


def test_no_earlier_turn_asks_what_is_held_out() -> None:
    rng = random.Random(0)
    checked = 0
    for _ in range(4000):
        texts = user_texts(draw(rng, held_out=False, tasks={"chat": 1.0}))
        for text in texts[:-1]:
            word = REVERSE.fullmatch(text)
            if word:
                question = "reverse", held_out_by(word["word"], word["word"])
            elif "+" in text:
                question = "add", " ".join(re.findall(r"\d+", text))
            else:
                continue
            assert not Conversation(*question, []).held_out
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("task", [task for task in TASKS if task != "chat"])
def test_a_tenth_of_all_questions_is_held_out(task: str) -> None:
    questions = {c.question: c.held_out for c in drawn(task, 2000) if c.question}
    # A share of 2000 independent tenths spreads by 0.007; fewer than 2000 differ.
    assert sum(questions.values()) / len(questions) == pytest.approx(0.1, abs=0.03)


def test_what_is_held_out_is_held_out_in_any_words() -> None:
    words: dict[str, set[str]] = {}
    verdicts: dict[str, set[bool]] = {}
    for conversation in drawn("reverse", 5000):
        if len(conversation.question) == 2:
            words.setdefault(conversation.question, set()).add(asked(conversation))
            verdicts.setdefault(conversation.question, set()).add(conversation.held_out)
    assert max(map(len, words.values())) > 1
    assert all(len(verdict) == 1 for verdict in verdicts.values())
    assert {True} in verdicts.values()


def test_greetings_and_words_of_one_token_are_never_held_out() -> None:
    seen = set()
    for task in ("chat", "reverse", "count"):
        for conversation in drawn(task, 2000):
            if conversation.question == "":
                assert not conversation.held_out
                seen.add(task)
    assert seen == {"chat", "reverse", "count"}


def test_a_word_that_is_one_token_between_quotes_is_among_those_to_spell(tokenizer: Any) -> None:
    whole = {t for t in tokenizer.get_vocab() if re.fullmatch("[a-z]{2,7}", t)}
    assert whole
    assert whole <= set(WORDS_SEEN_WHOLE)


def test_a_story_may_be_shorter() -> None:
    rng = random.Random(0)
    for words in (0, 60):
        for _ in range(50):
            conversation = draw(rng, held_out=False, tasks={"recall": 1.0}, story_words=words)
            recall_is_right(conversation)
            assert sum(len(text.split()) for text in user_texts(conversation)) < words + 120


def test_turns_are_the_answers_to_the_last_question() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "d"},
        {"role": "assistant", "content": "e"},
    ]
    turns = list(Conversation("calculate", "c", messages).turns())
    assert turns == [(messages[:3], messages[3]), (messages[:5], messages[5])]
