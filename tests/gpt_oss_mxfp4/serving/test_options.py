"""What serve is asked for, from its arguments, and what the model is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4 import cli
from gpt_oss_mxfp4.cli import serve
from gpt_oss_mxfp4.serving.options import ServeOptions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    calls: list[ServeOptions] = []

    def remember(options: ServeOptions) -> int:
        calls.append(options)
        return 0

    monkeypatch.setattr(serve, "run_serve", remember)
    return calls


def test_the_defaults_are_the_demo_model_on_this_machine_alone(asked: list[ServeOptions]) -> None:
    assert cli.main(["serve"]) == 0
    assert asked == [ServeOptions()]
    assert (asked[0].host, asked[0].port, asked[0].telemetry) == ("127.0.0.1", 8000, False)


def test_each_argument_is_an_option(asked: list[ServeOptions]) -> None:
    arguments = (
        "serve --model a/b --host ::1 --port 0 --metrics-port 9 --model-name c --max-length 10 --max-batch-size 2 "
        "--api-key-file keys --max-body-bytes 5 --drain-seconds 7 --telemetry --ui --threads 2"
    )
    assert cli.main(arguments.split()) == 0
    assert asked == [
        ServeOptions(
            model="a/b",
            host="::1",
            port=0,
            metrics_port=9,
            name="c",
            max_length=10,
            max_batch_size=2,
            api_key_file=Path("keys"),
            max_body_bytes=5,
            drain_seconds=7,
            telemetry=True,
            ui=True,
            threads=2,
        )
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-name", "\udcff"], "argument --model-name: must be valid UTF-8"),
        (["--port", "65536"], "argument --port: must be between 0 and 65535, got 65536"),
        (["--port", "http"], "argument --port: must be a whole number, got 'http'"),
        (["--max-batch-size", "0"], "argument --max-batch-size: must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    asked: list[ServeOptions],
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert cli.main(["serve", *arguments]) == 2
    assert capfd.readouterr().err == f"gpt-oss-mxfp4 serve: {message}\n"
    assert not asked


def test_a_model_is_called_by_name_hub_id_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ServeOptions(model="~/my-model").served_name == "my-model"
    assert ServeOptions(model="m" * 300).served_name == "m" * 300
    assert ServeOptions().served_name == "gpt-oss-mxfp4-demo"
    assert ServeOptions(model="openai/gpt-oss-20b").served_name == "openai/gpt-oss-20b"
    assert ServeOptions(model=str(folder)).served_name == "my-model"
    assert ServeOptions(model=f"{folder}/").served_name == "my-model"
    assert ServeOptions(model=str(folder), name="other").served_name == "other"
