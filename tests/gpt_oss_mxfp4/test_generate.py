"""The command as its users run it: what goes to which stream, the same text twice, the ways it ends."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gpt_oss_mxfp4
from gpt_oss_mxfp4 import cli, physical_memory
from gpt_oss_mxfp4 import generate as verb
from gpt_oss_mxfp4.compiled_cache import CACHE_VARIABLE, SUFFIX
from gpt_oss_mxfp4.detokenize import INCOMPLETE
from gpt_oss_mxfp4.footprint import ACTIVATION_BYTES
from tests.golden import CHECKPOINT
from tests.gpt_oss_mxfp4.byte_tokenizer import ByteTokenizer
from tests.gpt_oss_mxfp4.checkpoint.hub_stand_in import serve

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = dict(os.environ)
"""Given explicitly: importing MAX, as other tests do, changes what a child inherits (NOTES F2)."""

PROMPT = "The keeper of the lighthouse counted the ships"


@dataclass(frozen=True)
class Said:
    """What the command said on either stream, its times as 0, and its exit code."""

    out: str
    lines: list[str]
    code: int


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Runs the command with an engine that says what it is told to, in place of MAX."""
    tokenizer = ByteTokenizer()

    def run(generated: str, *arguments: str, template: bool = True) -> Said:
        def encode_prompt(checkpoint: object, text: str, *, raw: bool, **asked: object) -> Any:
            harmony = template and not raw
            prompt = f"<|start|>user<|message|>{text}<|end|><|start|>assistant" if harmony else text
            return SimpleNamespace(
                ids=tokenizer.encode(prompt),
                tokenizer=tokenizer,
                harmony=harmony,
                templated=harmony,
            )

        def stream(pipeline: object, prompt: object, options: Any) -> Iterator[list[int]]:
            for token_id in tokenizer.encode(generated)[: options.max_new_tokens]:
                yield [token_id]

        engine = SimpleNamespace(load=lambda *arguments: None, stream=stream)
        monkeypatch.setattr(gpt_oss_mxfp4, "engine", engine, raising=False)
        monkeypatch.setattr("gpt_oss_mxfp4.prompt.encode_prompt", encode_prompt)
        monkeypatch.setattr(verb, "DEMO_MODEL", CHECKPOINT)
        code = cli.main(["generate", "--prompt", "What is 12 + 34?", *arguments])
        out, err = capfd.readouterr()
        return Said(out, re.sub(r"[\d.]+ s$", "0.0 s", err, flags=re.MULTILINE).splitlines(), code)

    return run


REASONED = (
    "<|channel|>analysis<|message|>2 + 4 = 6, 1 + 3 = 4.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>46 €<|return|>"
)
STEPS = [
    "loading MAX ...",
    "loading MAX: 0.0 s",
    "compiling the demo model (a minute or two the first time) ...",
    "compiling the demo model: 0.0 s",
]


@pytest.mark.parametrize(("terminal", "shown"), [(True, "a\u241b[2Jb\n"), (False, "a\x1b[2Jb\n")])
def test_text_does_nothing_to_a_terminal(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: str
) -> None:
    standard_output = os.fstat(1)  # not what MAX's prints are given for it later, standard error
    monkeypatch.setattr(
        "sys.stdout.isatty", lambda: terminal == os.path.samestat(os.fstat(1), standard_output)
    )
    assert say("a\x1b[2Jb", "--raw", "--max-new-tokens", "6").out == shown


def test_the_answer_alone_goes_to_standard_output(say: Callable[..., Said]) -> None:
    said = say(REASONED)
    assert (said.out, said.code) == ("46 €\n", 0)
    assert said.lines[:-1] == STEPS
    assert said.lines[-1].startswith("prompt: 33 tokens, ")


def test_a_text_that_the_machine_has_no_memory_for_is_refused(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(physical_memory, "available_memory", lambda: ACTIVATION_BYTES + 10**8)
    said = say(REASONED, "--max-new-tokens", "100000")
    assert (said.out, said.code) == ("", 2)
    assert said.lines[-1] == (
        "gpt-oss-mxfp4: the prompt and --max-new-tokens: 33 + 100000 tokens take 238 MB of memory for the KV cache "
        "and the rotations, of which this machine has 100 MB left; 32444 tokens fit"
    )
    assert say(REASONED).code == 0


def test_the_reasoning_goes_before_it_if_asked_for(say: Callable[..., Said]) -> None:
    said = say(REASONED, "--show-reasoning")
    assert said.out == "[analysis]\n2 + 4 = 6, 1 + 3 = 4.\n\n[final]\n46 €\n"
    assert said.lines[:-1] == STEPS


def test_raw_text_is_printed_whatever_channels_it_has(say: Callable[..., Said]) -> None:
    said = say(REASONED, "--raw")
    assert said.out == "analysis2 + 4 = 6, 1 + 3 = 4.assistantfinal46 €\n"
    assert said.lines[:-1] == STEPS
    assert said.lines[-1].startswith("prompt: 16 tokens, ")


def test_reasoning_that_no_channel_marks_is_told_to_be_in_the_text(
    say: Callable[..., Said],
) -> None:
    said = say("Once", "--show-reasoning", template=False)
    assert said.out == "Once\n"
    notes = [
        "this model has no chat template, so the text is continued as it is; --raw leaves out this note",
        "--show-reasoning: this model's text has no channels, so all of it is shown",
    ]
    assert said.lines[:-1] == [*STEPS[:2], *notes, *STEPS[2:]]


def test_an_answer_that_did_not_come_is_told_and_its_cure(say: Callable[..., Said]) -> None:
    said = say(REASONED, "--max-new-tokens", "20")
    assert (said.out, said.code) == ("", 0)
    assert said.lines[-2] == (
        "no answer within 20 tokens: raise --max-new-tokens, or see its reasoning with --show-reasoning"
    )


def test_a_call_is_told_beside_the_text(say: Callable[..., Said]) -> None:
    header = "<|channel|>commentary to=functions.calculator <|constrain|>json"
    said = say(header + '<|message|>{"expression": "12 * 34"}<|call|>')
    assert (said.out, said.code) == ("", 0)
    assert said.lines[-2] == (
        'the model called functions.calculator, but generate offers no tools: {"expression": "12 * 34"}'
    )


def command(*arguments: str, model: Path = CHECKPOINT) -> list[str]:
    program = [sys.executable, "-m", "gpt_oss_mxfp4", "generate", "--model", str(model)]
    return [*program, "--max-new-tokens", "12", "--prompt", PROMPT, *arguments]


def generate(
    *arguments: str, model: Path = CHECKPOINT, cache: Path | None = None
) -> tuple[bytes, str]:
    """Text and what was told beside it."""
    done = subprocess.run(
        command(*arguments, model=model),
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**ENVIRONMENT, **({CACHE_VARIABLE: str(cache)} if cache else {})},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode()


@pytest.fixture(scope="module")
def greedy() -> tuple[bytes, str]:
    return generate()


@pytest.mark.slow
def test_text_alone_goes_to_standard_output(greedy: tuple[bytes, str]) -> None:
    text, told = greedy
    assert text.decode().endswith("\n")
    assert len(text) > 1
    lines = told.splitlines()
    assert [line.split(":")[0] for line in lines if not line.endswith("...")] == [
        "loading MAX",
        "this model has no chat template, so the text is continued as it is; --raw leaves out this note",
        f"compiling {CHECKPOINT}",
        "prompt",
    ]
    # The model ends its text before the tokens are used up.
    assert re.fullmatch(
        r"prompt: 13 tokens, [\d.]+ tokens/s; generation: 9 tokens, [\d.]+ tokens/s", lines[-1]
    )


@pytest.mark.slow
def test_max_speaks_on_standard_error_and_only_if_asked(greedy: tuple[bytes, str]) -> None:
    text, told = generate("--verbose")
    assert text == greedy[0]
    assert "max.pipelines" in told
    assert "max.pipelines" not in greedy[1]


@pytest.mark.slow
def test_what_an_earlier_run_has_compiled_is_not_built_again(
    greedy: tuple[bytes, str], tmp_path: Path
) -> None:
    """Damaged files are compiled anew, and a folder that cannot be written costs time and a note."""
    built = "Building, compiling"
    kept = Path(ENVIRONMENT[CACHE_VARIABLE])
    text, told = generate("--verbose")
    assert text == greedy[0]
    assert built not in told

    damaged = tmp_path / "cache"
    damaged.mkdir()
    for file in kept.glob(f"*{SUFFIX}"):
        if file.is_dir():  # the ops, of which test_library tells
            shutil.copytree(file, damaged / file.name)
            continue
        # A digest that is right, of what MAX cannot read.
        content = b"no model"
        digest = hashlib.sha256(content).hexdigest().encode()
        (damaged / file.name).write_bytes(digest + b"\n" + content)
    text, told = generate("--verbose", cache=damaged)
    assert text == greedy[0]
    assert built in told
    text, told = generate("--verbose", cache=damaged)
    assert text == greedy[0]
    assert built not in told


COMPILES = """
import sys
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType
from gpt_oss_mxfp4.kept_graphs import load_kept_graph
from gpt_oss_mxfp4.process import run_command

def build():
    with Graph("x", input_types=[TensorType(DType.float32, [1], DeviceRef.CPU())]) as graph:
        graph.output(graph.inputs[0])
    return graph

def work(write, progress):
    session = InferenceSession()
    for made_from in ("one", "another"):
        load_kept_graph(session, made_from, build)
    write("both run\\n")

sys.exit(run_command(work, verbose=False))
"""


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "cache"
    done = subprocess.run(
        [sys.executable, "-c", COMPILES],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, CACHE_VARIABLE: str(folder)},
    )
    assert (done.returncode, done.stdout) == (0, "both run\n"), done.stderr
    assert done.stderr.splitlines() == [
        f"{folder}: what was compiled cannot be kept there (Not a directory), so the next start compiles again; "
        f"{CACHE_VARIABLE} names another folder"
    ]


@pytest.mark.slow
def test_sampling_repeats_with_its_seed_only() -> None:
    sampled = ("--temperature", "1.5")
    first, again, other = (generate(*sampled, "--seed", seed)[0] for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_chat_template_wraps_the_prompt_unless_it_is_raw(
    greedy: tuple[bytes, str], tmp_path: Path
) -> None:
    for file in CHECKPOINT.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for message in messages %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>"
        "{% endfor %}<|start|>assistant"
    )
    told = generate(model=tmp_path)[1]
    plain_tokens, chat_tokens = (
        int(text.splitlines()[-1].split()[1]) for text in (greedy[1], told)
    )
    assert chat_tokens > plain_tokens + 4
    assert generate("--raw", model=tmp_path)[0] == greedy[0]


@pytest.mark.slow
def test_a_reader_that_stops_is_no_error_message() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command(), stdout=write, stderr=subprocess.PIPE, check=False, cwd=ROOT, env=ENVIRONMENT
    )
    os.close(write)
    assert done.returncode == 128 + signal.SIGPIPE
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">/dev/full", "gpt-oss-mxfp4: standard output: No space left on device"),
        (">&-", "gpt-oss-mxfp4: standard output must be open, the text goes there"),
    ],
)
def test_an_output_that_cannot_be_written_ends_in_one_line(redirection: str, message: str) -> None:
    done = subprocess.run(
        f"{shlex.join(command())} {redirection}",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == message
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_interrupt_ends_at_once_with_130() -> None:
    with subprocess.Popen(
        command(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**ENVIRONMENT, CACHE_VARIABLE: ""},  # nothing kept: it compiles
    ) as process:
        assert process.stderr is not None
        assert "compiling" in next(line for line in process.stderr if line.startswith("compiling"))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        told = process.stderr.read()
        assert process.wait() == 130
        assert time.monotonic() - begin < 5
    assert "interrupted" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_model_is_named_by_its_hub_id(greedy: tuple[bytes, str], tmp_path: Path) -> None:
    """The Hub's cache holds links, to files without a suffix."""
    with serve() as hub:
        hub.files = {file.name: file.read_bytes() for file in CHECKPOINT.iterdir()}
        done = subprocess.run(
            [*command(), "--model", "test/tiny"],
            capture_output=True,
            check=False,
            cwd=ROOT,
            env={**ENVIRONMENT, **hub.environment(tmp_path)},
        )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == greedy[0]


@pytest.mark.slow
def test_plain_max_generates_the_same_text(greedy: tuple[bytes, str]) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "max"), "generate"),
            *("--custom-architectures", "gpt_oss_mxfp4", "--model", str(CHECKPOINT)),
            *("--devices", "cpu", "--quantization-encoding", "float32"),
            *("--prompt", PROMPT, "--max-new-tokens", "12", "--top-k", "1"),
        ],
        cwd=ROOT,
        env={**ENVIRONMENT, "MODULAR_TELEMETRY_ENABLED": "0", "MAX_SERVE_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    printed = done.stdout.decode(errors="replace").split("\nPrompt size:")[0]
    # It decodes token by token, so what follows a split character may differ.
    assert printed.split(INCOMPLETE)[0] == greedy[0].decode().rstrip("\n").split(INCOMPLETE)[0]
    assert "Prompt size: 13\nOutput size: 9\n" in done.stdout.decode(errors="replace")
