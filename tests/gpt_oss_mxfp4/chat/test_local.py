"""A model in this process: how its messages become an answer, with an engine that says what it is told to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import gpt_oss_mxfp4
from gpt_oss_mxfp4 import generate as verb
from gpt_oss_mxfp4 import physical_memory
from gpt_oss_mxfp4.chat.answer import End, Message
from gpt_oss_mxfp4.chat.local import LocalModel
from gpt_oss_mxfp4.chat.options import ChatOptions
from gpt_oss_mxfp4.endpoint.turn import Piece
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES
from gpt_oss_mxfp4.harmony_header import Kind
from gpt_oss_mxfp4.options import Refused
from gpt_oss_mxfp4.progress import Progress
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer

PROMPT_TOKENS = len(ByteTokenizer().encode("<|start|>user<|message|>Hi<|end|><|start|>assistant"))
Load = Callable[..., LocalModel]


class Engine(SimpleNamespace):
    """In place of the module that imports MAX."""

    def __init__(self, generated: str, template: str = "harmony") -> None:
        super().__init__()
        self.generated = generated
        self.tokenizer = ByteTokenizer()
        self.tokenizer.chat_template = template  # type: ignore[attr-defined]
        self.loaded: dict[str, Any] = {}
        self.efforts: list[str] = []
        self.sampled: list[ChatOptions] = []
        self.closed = 0

    def load_tokenizer(self, checkpoint: object) -> ByteTokenizer:
        return self.tokenizer

    def load(self, checkpoint: object, prompt: int, new: int, options: object, **rest: Any) -> None:
        self.loaded = {"length": prompt + new, **rest}

    def encode_chat(
        self, checkpoint: object, tokenizer: object, messages: list[Message], effort: str
    ) -> Any:
        self.efforts.append(effort)
        harmony = self.tokenizer.chat_template == "harmony"  # type: ignore[attr-defined]
        text = "".join(f"<|start|>{m['role']}<|message|>{m['content']}<|end|>" for m in messages)
        ids = self.tokenizer.encode(f"{text}<|start|>assistant" if harmony else "plain")
        return SimpleNamespace(ids=ids, tokenizer=self.tokenizer, harmony=harmony)

    def stream(self, pipeline: object, prompt: object, options: ChatOptions) -> Iterator[list[int]]:
        self.sampled.append(options)
        try:
            for token_id in self.tokenizer.encode(self.generated)[: options.max_new_tokens]:
                yield [token_id]
        finally:
            self.closed += 1


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load(engine: Engine, **options: Any) -> LocalModel:
        for module in ("engine", "prompt"):
            monkeypatch.setattr(gpt_oss_mxfp4, module, engine, raising=False)
        monkeypatch.setattr(verb, "DEMO_MODEL", CHECKPOINT)
        return LocalModel(ChatOptions(**options), Progress(sys.stderr))

    return load


HI = [{"role": "user", "content": "Hi"}]


def answer(model: LocalModel) -> tuple[str, str, End]:
    """The reasoning, the answer, and its end without the time it took."""
    *pieces, end = model.answer(HI, effort="low", temperature=0.5, seed=7)
    assert isinstance(end, End)
    said = {Kind.REASONING: "", Kind.ANSWER: ""}
    for piece in pieces:
        assert isinstance(piece, Piece)
        said[piece.kind] += piece.text
    return said[Kind.REASONING], said[Kind.ANSWER], End(**{**vars(end), "seconds": 0.0})


def test_channels_become_reasoning_answer_and_calls(load: Load) -> None:
    engine = Engine(
        "<|channel|>analysis<|message|>hm<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>Wait.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>One €.<|end|><|start|>user<|message|>Ho<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Two.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.add<|message|>{"a": 1}<|end|>'
        "<|start|>assistant<|channel|>commentary to=functions.sub<|message|>{}<|call|>"
    )
    tokens = len(engine.tokenizer.encode(engine.generated))
    reasoning, text, end = answer(load(engine))
    assert (reasoning, text) == ("hm\nHo", "Wait.\nOne €.\nTwo.")
    calls = (("functions.add", '{"a": 1}'), ("functions.sub", "{}"))
    assert end == End(PROMPT_TOKENS, tokens, calls=calls)
    assert engine.efforts == ["low"]
    assert (engine.sampled[0].temperature, engine.sampled[0].seed) == (0.5, 7)


def test_messages_of_reasoning_that_follow_one_another_are_apart(load: Load) -> None:
    thoughts = "<|end|><|start|>assistant".join(
        f"<|channel|>analysis<|message|>{thought} thought." for thought in ("First", "Second")
    )
    reasoning, _, _ = answer(load(Engine(thoughts)))
    assert reasoning == "First thought.\nSecond thought."


def test_a_call_that_is_cut_off_in_its_arguments_is_told(load: Load) -> None:
    engine = Engine("<|channel|>commentary to=functions.add<|message|>{")
    assert answer(load(engine))[2].calls == (("functions.add", "{"),)


def test_a_call_that_tokens_run_out_in_the_header_of_is_not_told(load: Load) -> None:
    engine = Engine("<|channel|>commentary to=functions.add<|message|>{}<|call|>")
    tokens = len(engine.tokenizer.encode("<|channel|>commentary to=functions.a"))
    assert answer(load(engine, max_new_tokens=tokens)) == (
        "",
        "",
        End(PROMPT_TOKENS, tokens, cut=True),
    )


def test_text_in_place_of_a_header_is_not_lost(load: Load) -> None:
    assert answer(load(Engine("Hi")))[:2] == ("", "Hi")


def test_a_template_without_channels_gives_an_answer_alone(load: Load) -> None:
    _, text, end = answer(load(Engine("grüß", template="plain")))
    assert (text, end) == ("grüß", End(5, 6))
    _, text, end = answer(load(Engine("grüß", template="plain"), max_new_tokens=2))
    assert (text, end) == ("gr", End(5, 2, cut=True))


def test_a_model_without_a_chat_template_is_refused(load: Load) -> None:
    with pytest.raises(Refused, match="must have a chat template to chat"):
        load(Engine("", template=""))


def test_a_conversation_that_the_machine_has_no_memory_for_is_refused(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(physical_memory, "available_memory", lambda: ACTIVATION_BYTES + 10**8)
    engine = Engine("")
    with pytest.raises(
        Refused, match=r"^--max-length: 131072 tokens take 302 MB of .* tokens fit$"
    ):
        load(engine, max_length=131072)
    assert not engine.loaded
    load(engine)


def test_the_cache_holds_a_whole_conversation_and_is_reused(load: Load) -> None:
    engine = Engine("")
    load(engine, max_length=100)
    assert engine.loaded == {"length": 100, "reuse": True}
    load(engine, max_length=131072)
    with pytest.raises(Refused, match="--max-length: must be at most the model's 131072 tokens"):
        load(engine, max_length=131073)


def test_an_answer_gets_the_room_that_is_left(load: Load) -> None:
    engine = Engine("<|channel|>final<|message|>So it goes on<|return|>")
    model = load(engine, max_length=PROMPT_TOKENS + 9)
    _, text, end = answer(model)
    assert (text, end) == ("So", End(PROMPT_TOKENS, 9, cut=True))
    assert answer(load(engine, max_length=PROMPT_TOKENS + 1))[2].tokens == 1
    full = load(engine, max_length=PROMPT_TOKENS)
    with pytest.raises(Refused) as refusal:
        answer(full)
    assert str(refusal.value) == (
        f"the conversation has {PROMPT_TOKENS} tokens, and {PROMPT_TOKENS} is all that --max-length allows: /new "
        "begins another"
    )


def test_an_answer_that_just_fits_is_not_cut(load: Load) -> None:
    engine = Engine("<|channel|>final<|message|>So<|return|>")
    tokens = len(engine.tokenizer.encode(engine.generated))
    assert answer(load(engine, max_new_tokens=tokens))[2] == End(PROMPT_TOKENS, tokens)


def test_stopping_keeps_what_came_and_frees_the_cache(load: Load) -> None:
    engine = Engine("<|channel|>final<|message|>So it goes on<|return|>")
    model = load(engine)
    pieces: list[Piece | End] = []
    for piece in model.answer(HI, effort="low", temperature=0, seed=0):
        pieces.append(piece)
        if piece == Piece(Kind.ANSWER, "o"):
            model.stop()
    assert [piece.text for piece in pieces if isinstance(piece, Piece)] == ["S", "o"]
    assert isinstance(pieces[-1], End)
    assert pieces[-1].stopped
    assert 0 < pieces[-1].seconds < 60
    assert engine.closed == 1
    assert answer(model)[1] == "So it goes on", "the next answer is whole"
