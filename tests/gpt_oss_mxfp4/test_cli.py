"""Arguments: what is refused, in how many lines, and with which exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli, generate, machine
from gpt_oss_mxfp4.options import GenerateOptions
from tests.golden import CHECKPOINT


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[GenerateOptions]:
    """What the verb is called with, instead of running it."""
    calls: list[GenerateOptions] = []

    def remember(options: GenerateOptions) -> int:
        calls.append(options)
        return 0

    monkeypatch.setattr(cli.generate, "run_generate", remember)
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "gpt-oss-mxfp4: the following arguments are required: VERB"),
        (
            ["swim"],
            "gpt-oss-mxfp4: argument VERB: invalid choice: 'swim' (choose from "
            + ", ".join(repr(verb.__name__.rpartition(".")[2]) for verb in cli.VERBS),
        ),
        (["generate"], "one of the arguments --prompt --prompt-file is required"),
        (
            ["--prompt-file", __file__],
            "argument --prompt-file: not allowed with argument --prompt",
        ),
        (["generate", "--prompt", ""], "argument --prompt: must not be empty"),
        (["generate", "--prompt", "\udcff"], "argument --prompt: must be valid UTF-8"),
        (
            ["chat", "--url", "http://127.0.0.1:9", "--system", "\udcff"],
            "argument --system: must be valid UTF-8",
        ),
        (["--temperature", "-1"], "argument --temperature: must be between 0 and 2, got -1"),
        (["--temperature", "nan"], "argument --temperature: must be a number, got 'nan'"),
        (["--temperature", "hot"], "argument --temperature: must be a number, got 'hot'"),
        (["--top-p", "0"], "argument --top-p: must be above 0 and at most 1, got 0"),
        (["--top-k", "0"], "argument --top-k: must be between 1 and 2147483647, got 0"),
        (
            ["--top-k", "9223372036854775808"],
            "argument --top-k: must be between 1 and 2147483647, got 9223372036854775808",
        ),
        (
            ["--max-new-tokens", "2.5"],
            "argument --max-new-tokens: must be a whole number, got '2.5'",
        ),
        (
            ["--raw", "--show-reasoning"],
            "argument --show-reasoning: not allowed with argument --raw",
        ),
        (["convert", "x"], "the following arguments are required: --output"),
        (["verify", ""], "argument PATH: must not be empty"),
        (["serve", "--api-key-file", ""], "argument --api-key-file: must not be empty"),
        (
            ["convert", "x", "--output", "y", "--to", "gguf"],
            "argument --to: invalid choice: 'gguf' (choose from 'mxfp4', 'bf16', 'original')",
        ),
        (
            ["convert", "x", "--output", "y", "--shard-gb", "0"],
            "argument --shard-gb: must be between 1e-9 and 1e9, got 0",
        ),
        (["--seed", "-1"], "argument --seed: must be between 0 and 2^64 - 1, got -1"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str],
    asked: list[GenerateOptions],
    arguments: list[str],
    message: str,
) -> None:
    if arguments and arguments[0].startswith("--"):
        arguments = ["generate", "--prompt", "x", *arguments]
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    # Python 3.12 and later leave out the quotes around choices.
    assert message.replace("'", "") in err.replace("'", "")
    assert not asked


def test_the_defaults_are_the_demo_model_and_its_likeliest_answer(
    asked: list[GenerateOptions],
) -> None:
    assert cli.main(["generate", "--prompt", "x"]) == 0
    assert asked[0].temperature == 0
    assert asked[0].max_new_tokens == 1024
    assert (asked[0].model, asked[0].model_name) == (None, "the demo model")
    assert not asked[0].show_reasoning
    assert not asked[0].raw


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("x", "x"),
        ("Grüße\n", "Grüße"),
        ("two\nlines\r\n", "two\nlines"),
        ("x\n\n", "x\n"),
        ("x" * 10**6, "x" * 10**6),
        ("\ufeffx", "x"),
    ],
)
def test_a_prompt_may_be_a_file_or_standard_input(
    asked: list[GenerateOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    prompt: str,
) -> None:
    file = tmp_path / "prompt"
    file.write_bytes(content.encode())
    assert cli.main(["generate", "--prompt-file", str(file)]) == 0
    with file.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert cli.main(["generate", "--prompt-file", "-"]) == 0
    assert [options.prompt for options in asked] == [prompt, prompt]


def test_the_home_folder_is_found_where_the_shell_does_not_name_it(
    asked: list[GenerateOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "prompt").write_text("x")
    assert cli.main(["generate", "--prompt-file=~/prompt", "--precompiled=~/compiled"]) == 0
    assert (asked[0].prompt, asked[0].precompiled) == ("x", tmp_path / "compiled")
    assert cli.main(["generate", "--prompt", "x", "--precompiled=~nobody at all/x"]) == 0
    assert asked[1].precompiled == Path("~nobody at all/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff", "must be valid UTF-8"),
        (b"\n", "must not be empty"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused_in_one_line(
    asked: list[GenerateOptions],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes | None,
    message: str,
) -> None:
    file = tmp_path / "prompt"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["generate", "--prompt-file", str(file)]) == 2
    assert capfd.readouterr() == (
        "",
        f"gpt-oss-mxfp4 generate: argument --prompt-file: {file} {message}\n",
    )
    assert not asked


def test_a_model_goes_by_the_name_that_was_given(asked: list[GenerateOptions]) -> None:
    for model in ("openai/gpt-oss-20b", "."):
        assert cli.main(["generate", "--prompt", "x", "--model", model]) == 0
        assert (asked[-1].model, asked[-1].model_name) == (model, model)


@pytest.mark.parametrize("option", ["--show-reasoning", "--raw"])
def test_what_is_printed_can_be_asked_for(asked: list[GenerateOptions], option: str) -> None:
    assert cli.main(["generate", "--prompt", "x", option]) == 0
    assert (asked[0].show_reasoning, asked[0].raw) == (option != "--raw", option == "--raw")


@pytest.mark.parametrize("option", [["--top-k", "5"], ["--top-p", "0.9"]])
def test_top_k_and_top_p_alone_ask_for_sampling(
    asked: list[GenerateOptions], option: list[str]
) -> None:
    assert cli.main(["generate", "--prompt", "x", *option]) == 0
    assert cli.main(["generate", "--prompt", "x", *option, "--temperature", "0"]) == 0
    assert [options.temperature for options in asked] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "./nowhere"], "must be an existing folder or a Hub id"),
        (["--model", "{folder}"], "must hold config.json"),
        (
            ["--precompiled", "{folder}"],
            "--precompiled: {folder} must be a folder that compile has written",
        ),
        (
            ["--devices", "gpu", "--activations", "int8"],
            "--activations: must be bfloat16 on a GPU; run with --devices cpu",
        ),
        (
            ["--model", str(CHECKPOINT), "--max-new-tokens", "131072"],
            "--max-new-tokens: must be less than the model's 131072 tokens",
        ),
    ],
)
def test_what_cannot_be_run_ends_in_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    monkeypatch.setattr(machine, "_GPU_DEVICES", ("/dev/null",))
    assert cli.main(["generate", "--prompt", "x", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("gpt-oss-mxfp4: ")
    assert message.format(folder=tmp_path) in err
    assert err.count("\n") == 1


def test_a_demo_model_that_is_missing_ends_in_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "demo_model"):
        monkeypatch.setattr(generate, "DEMO_MODEL", folder)
        assert cli.main(["generate", "--prompt", "x"]) == 2
        assert capfd.readouterr() == (
            "",
            f"gpt-oss-mxfp4: the demo model: must be in {folder}, is not. Install the package again, or name a model "
            "with --model.\n",
        )


@pytest.mark.parametrize("verb", [["generate", "--prompt", "x"], ["bench"], ["chat"]])
def test_a_machine_without_a_gpu_is_told_before_max_is_loaded(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.setattr(machine, "_GPU_DEVICES", ("/dev/there is none",))
    monkeypatch.setattr("sys.platform", "linux")
    assert cli.main([*verb, "--devices", "gpu"]) == 2
    assert capfd.readouterr() == (
        "",
        "gpt-oss-mxfp4: --devices gpu: there is no GPU on this machine; run with --devices cpu\n",
    )


def test_versions_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert re.fullmatch(r"gpt-oss-mxfp4 (\S+|not installed), max 26\.7\.0\n", out)


def test_help_does_not_wait_for_max() -> None:
    script = (
        "import sys; from gpt_oss_mxfp4.cli import main; code = main(['generate', '--help']);"
        "sys.exit(code or 'max' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    assert "--max-new-tokens" in done.stdout
    assert "default: the demo model, a part of this package" in " ".join(done.stdout.split())


def test_the_command_leaves_torch_out() -> None:
    """Where it is installed transformers imports it, which takes longer than all else together."""
    code = (
        "import sys; from gpt_oss_mxfp4.__main__ import main; sys.argv = ['', 'generate', '--help']; main()\n"
        "import gpt_oss_mxfp4.engine; assert not any(name.startswith('torch.') for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_before_a_verb_runs_is_told_in_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt_oss_mxfp4 import __main__

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert __main__.main() == 130
    assert capfd.readouterr() == ("", "\ngpt-oss-mxfp4: interrupted\n")
