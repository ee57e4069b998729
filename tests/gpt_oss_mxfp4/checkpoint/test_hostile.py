"""Hostile folders against the loader and every verb: one clear refusal, exit code 2, nothing left, nothing run."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.checkpoint.checkpoint import open_checkpoint
from gpt_oss_mxfp4.checkpoint.errors import CheckpointError, Fault
from gpt_oss_mxfp4.checkpoint.survey import survey
from gpt_oss_mxfp4.options import DEMO_MODEL
from tests.gpt_oss_mxfp4.checkpoint.hostile import CASES, CONFIG, INDEX, ONE, Case, write_sound

Capture = pytest.CaptureFixture[str]

LONGEST_MESSAGE = 30_000
"""Characters: what a message repeats of a file is cut, and faults of a kind are counted past the tenth."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sound(tmp_path / "model")


def check_message(text: str, folder: Path) -> None:
    """A refusal can be printed, is short enough to be read, and says where."""
    assert text.replace("\n", "").isprintable()
    assert str(folder) in text
    assert len(text) < LONGEST_MESSAGE


def check_refusal(error: CheckpointError, folder: Path, *, thoroughly: bool) -> None:
    check_message(str(error), folder)
    if thoroughly:
        assert not loader_faults(error, folder) - set(survey(folder).faults)


def listed(folder: Path) -> list[tuple[str, int]]:
    """Every file below a folder with its size."""
    found = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return sorted((str(p), p.stat().st_size) for p in found)


def test_the_folder_that_is_changed_is_sound(folder: Path) -> None:
    assert survey(folder).faults == ()
    assert len(open_checkpoint(folder).files) == 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_by_the_loader_and_by_every_verb(
    case: Case, folder: Path, tmp_path: Path, capfd: Capture
) -> None:
    case.make(folder)
    before = listed(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    refusal = str(caught.value)
    check_message(refusal, folder)
    for piece in case.told:
        assert piece in refusal

    found = survey(folder).faults
    assert not loader_faults(caught.value, folder) - set(found)

    path = str(folder)
    for verb in (
        ["generate", "--prompt", "x", "--model", path],
        ["bench", "--model", path],
        ["compile", "--model", path, "--output", str(tmp_path / "compiled")],
    ):
        assert cli.main(verb) == 2
        assert capfd.readouterr() == ("", f"gpt-oss-mxfp4: {refusal}\n")

    assert cli.main(["verify", path]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for piece in case.told:
        assert piece in err

    assert cli.main(["convert", path, "--to", "original", "--output", str(tmp_path / "o")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("gpt-oss-mxfp4: ")
    assert "Traceback" not in err
    check_message(err.removeprefix("gpt-oss-mxfp4: "), folder)
    assert listed(tmp_path) == before

    assert cli.main(["inspect", path]) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    assert (out + err).replace("\n", "").isprintable()
    for piece in case.told:
        assert piece in out + err

    assert cli.main(["inspect", path, "--json"]) == 2
    out, _ = capfd.readouterr()
    assert len(json.loads(out)["faults"]) == len(found)
    assert listed(tmp_path) == before


def loader_faults(error: CheckpointError, folder: Path) -> set[Fault]:
    """The loader's faults as a survey has them: with the name of the file, where one is at fault."""
    where = Path(error.where)
    if where.parent != folder:
        return set(error.faults)
    return {Fault(f.kind, f"{where.name}: {f.text}", f.cure) for f in error.faults}


def test_links_out_of_the_folder_are_followed_as_the_cache_needs_it(
    folder: Path, tmp_path: Path
) -> None:
    (folder / ONE).rename(tmp_path / "blob")
    (folder / ONE).symlink_to(tmp_path / "blob")
    assert survey(folder).faults == ()


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "~nobody-of-this-name/x", "a/b\0c", "-"])
@pytest.mark.parametrize("verb", ["inspect", "verify", "generate"])
def test_a_path_that_cannot_be_one_is_refused_in_one_line(
    verb: str, name: str, capfd: Capture
) -> None:
    arguments = {"generate": ["--prompt", "x", f"--model={name}"]}.get(verb, ["--", name])
    assert cli.main([verb, *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("gpt-oss-mxfp4: ")


def test_a_folder_that_may_not_be_looked_into_is_refused_in_one_line(
    folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, which tests may run as, nothing is forbidden: so the call says so."""

    def forbidden(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Permission denied\)\. Check"):
        open_checkpoint(folder)


MARKER = "was_run"


def plant_code(folder: Path) -> Path:
    """Code wherever one might think of loading some; each file would leave a marker."""
    marker = folder / MARKER
    program = f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n"
    for name in ("modeling_gpt_oss", "configuration_gpt_oss", "tokenization", "evil", "setup"):
        (folder / f"{name}.py").write_text(program)
    for name in ("__init__.py", "conftest.py", "sitecustomize.py", "numpy.py", "json.py"):
        (folder / name).write_text(program)
    config = json.loads((folder / CONFIG).read_text())
    code = {
        "AutoConfig": "configuration_gpt_oss.Evil",
        "AutoModelForCausalLM": "modeling_gpt_oss.Evil",
        "AutoTokenizer": ["tokenization.Evil", "tokenization.Evil"],
    }
    more = {"auto_map": code, "trust_remote_code": True, "custom_code": True}
    (folder / CONFIG).write_text(json.dumps(config | more))
    return marker


def test_code_in_the_folder_is_never_run(tmp_path: Path, capfd: Capture) -> None:
    folder = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    marker = plant_code(folder)
    assert cli.main(["verify", str(folder)]) == 0
    assert cli.main(["inspect", str(folder)]) == 0
    assert "modeling_gpt_oss.py (" in capfd.readouterr().out
    checkpoint = open_checkpoint(folder)

    from gpt_oss_mxfp4.prompt import encode_prompt

    assert encode_prompt(checkpoint, "x").ids
    assert not marker.exists()


TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (TOKENIZER, None),
        *((TOKENIZER, text) for text in (b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 10**5)),
        (TOKENIZER, b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":99999999},"merges":[]}}'),
        *((TOKENIZER_CONFIG, text) for text in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 10**5)),
        (TOKENIZER_CONFIG, b'{"tokenizer_class":5}'),
        (
            TOKENIZER_CONFIG,
            b'{"tokenizer_class":"Evil","auto_map":{"AutoTokenizer":["evil.Evil",null]}}',
        ),
        ("chat_template.jinja", b"{% for %}"),
        ("chat_template.jinja", b"{{ 1 + 'a' }}"),
        ("chat_template.jinja", b"{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ("chat_template.jinja", b"{% for i in range(10 ** 12) %}{{ i }}{% endfor %}"),
        ("chat_template.jinja", b"{{ raise_exception('no') }}"),
    ],
)
def test_broken_tokenizer_files_are_refused_in_one_line(
    tmp_path: Path, file: str, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt_oss_mxfp4.options import Refused
    from gpt_oss_mxfp4.prompt import encode_prompt

    folder = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    marker = plant_code(folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever asks may run code is told yes
    with pytest.raises(Refused) as caught:
        encode_prompt(open_checkpoint(folder), "x")
    what = "a chat template that works (" if "template" in file else "the model's tokenizer files ("
    assert str(caught.value).startswith(f"{folder}: must hold {what}")
    assert str(caught.value).isprintable()
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id2label", 5),
        ("dtype", "evil"),
        ("architectures", 5),
        ("architectures", ["Evil"]),
        ("attention_dropout", "x"),
        ("use_cache", 7),
        ("pad_token_id", {}),
    ],
)
def test_a_config_that_max_or_transformers_does_not_take_is_refused_in_one_line(
    tmp_path: Path, key: str, value: Any
) -> None:
    """Fields that do not bear on the computation: the loader passes them over, what runs it does not."""
    from gpt_oss_mxfp4 import engine
    from gpt_oss_mxfp4.options import EngineOptions, Refused

    folder = Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {key: value}))
    checkpoint = open_checkpoint(folder)
    with pytest.raises(Refused) as caught:
        engine.load(checkpoint, 10, 10, EngineOptions(model=str(folder)))
    assert str(caught.value).isprintable()
    assert str(value) in str(caught.value) or "Evil" in str(caught.value)


HOSTILE_VALUES: list[Any] = [
    *(0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, 1e308, True, False, None),
    *("", "U8", "BF16", "../x", "\0", "\x1b[2J", "model.safetensors", ONE, "\u2028", "é" * 200),
    *([], {}, [0, 4], [4, 0], [2**62, 4], [[]], {"a": 1}, [None], ["full_attention"]),
]


def mutated_json(rng: random.Random, value: Any) -> Any:
    """A JSON value with one or a few of its parts replaced, removed, renamed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        node = value
        while True:
            inner = [
                n
                for n in (node.values() if isinstance(node, dict) else node)
                if n and isinstance(n, (dict, list))
            ]
            if not inner or rng.random() < 0.3:
                break
            node = rng.choice(inner)
        new = copy.deepcopy(rng.choice(HOSTILE_VALUES))
        if isinstance(node, list):
            at = rng.randrange(len(node) + 1)
            node[at : at + rng.randrange(2)] = [new] * rng.randrange(2)
            continue
        key = rng.choice([*node, "new"]) if node else "new"
        action = rng.random()
        if action < 0.6 or key == "new":
            node[key] = new
        elif action < 0.8:
            del node[key]
        else:
            node[str(new)] = node.pop(key)
    return value


def mutated_bytes(rng: random.Random, text: bytes) -> bytes:
    """Bytes with a few changed, removed, doubled or put in."""
    changed = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        piece = rng.choice(
            (b"\0", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b":", b"-", b"1e9", b"9" * 20, b"\\u0000",
             b"\\ud800", b"NaN", b"null", bytes(changed[at : at + rng.randrange(60)]))
        )  # fmt: skip
        changed[at : at + rng.choice((0, 1, len(piece), rng.randrange(40)))] = piece
    return bytes(changed)


def shard_bytes(rng: random.Random, header: dict[str, Any], data: bytes) -> bytes:
    """The first shard with its header, its length or its end changed."""
    text = json.dumps(header).encode()
    way = rng.random()
    if way < 0.6:
        text = json.dumps(mutated_json(rng, header)).encode()
    elif way < 0.9:
        text = mutated_bytes(rng, text)
    length = len(text)
    if way >= 0.9 or rng.random() < 0.05:
        length = rng.choice((0, 1, 2, length - 1, length + 1, 2**31, 2**63, rng.getrandbits(64)))
    end = rng.choice((None, None, None, None, -1, rng.randrange(len(data))))
    return length.to_bytes(8, "little") + text + data[:end]


def index_bytes(rng: random.Random, index: dict[str, Any], _: bytes) -> bytes:
    if rng.random() < 0.7:
        return json.dumps(mutated_json(rng, index)).encode()
    return mutated_bytes(rng, json.dumps(index).encode())


@pytest.mark.parametrize(
    ("name", "count", "mutate", "seed"),
    [
        (ONE, 4000, shard_bytes, 1),
        (ONE, 4000, shard_bytes, 2),
        (INDEX, 6000, index_bytes, 3),
        (CONFIG, 7000, index_bytes, 4),
    ],
)
def test_fuzzed_files_load_or_are_refused_clearly(
    folder: Path,
    name: str,
    count: int,
    mutate: Callable[[random.Random, dict[str, Any], bytes], bytes],
    seed: int,
) -> None:
    """21,000 files in all: no other exception, a message that can be printed, and what loads the library reads too."""
    rng = random.Random(seed)
    path = folder / name
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little") if name == ONE else 0
    sound = json.loads(content[8:begin] if begin else content)
    data = content[begin:]
    refused = 0
    for number in range(count):
        changed = mutate(rng, sound, data)
        path.write_bytes(changed)
        try:
            try:
                checkpoint = open_checkpoint(folder)
            except CheckpointError as error:
                refused += 1
                check_refusal(error, folder, thoroughly=number % 20 == 0)
                continue
            assert number % 20 or survey(folder).faults == ()
            if name == ONE:
                with safe_open(path, framework="numpy") as file:
                    names = {e.name for e in checkpoint.entries.values() if e.file == path}
                    assert names <= set(file.keys())
        except Exception as error:
            raise AssertionError(f"case {number} of seed {seed}: {changed[:3000]!r}") from error
    assert count * 0.5 < refused < count  # both ways are taken


@pytest.mark.skipif(
    sys.platform != "linux", reason="limits address space, and knows what is in use"
)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (ONE, '{"a":[' + "[],"),
        (ONE, '{"a":{"dtype":[' + "{},"),
        (CONFIG, '{"layer_types":[' + "[],"),
        (INDEX, '{"weight_map":{"a":[' + "{},"),
    ],
)
def test_a_file_of_many_small_things_costs_a_bounded_memory(
    folder: Path, name: str, text: str
) -> None:
    """As many as fit into the largest file that is read: 600 MB beyond the interpreter's own suffice."""
    opening, item = text[:-3], text[-3:]
    room = 8 * 2**20 - len(opening) - 100
    closing = "".join({"[": "]", "{": "}"}[c] for c in reversed(opening) if c in "[{")
    body = (opening + item * (room // 3))[:-1] + closing
    if name == ONE:
        body_bytes = body.encode()
        (folder / ONE).write_bytes(len(body_bytes).to_bytes(8, "little") + body_bytes)
    else:
        (folder / name).write_text(body)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gpt_oss_mxfp4 import cli\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)\n"
        "sys.exit(cli.main(['inspect', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "MemoryError" not in done.stderr
