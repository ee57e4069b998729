"""What is added to MAX's app and changed in it, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from max.pipelines.context.exceptions import PromptTooLongError
from max.serve.router import openai_routes
from pydantic import BaseModel, ValidationError

from gpt_oss_mxfp4.serving.app import extend
from gpt_oss_mxfp4.serving.options import ServeOptions

NAME = "openai/gpt-oss-20b"


class Shape(BaseModel):
    """A request's fields."""

    size: int
    sides: list[str]


@pytest.fixture(scope="module")
def client() -> TestClient:
    """Asks MAX's routes, and some that fail as they do."""
    app = FastAPI()
    app.include_router(openai_routes.router)
    app.state.pipeline = SimpleNamespace(model_name=NAME, lora_queue=None)
    app.state.pipeline_config = app.state.memory_plan = None

    @app.get("/too-long")
    async def too_long() -> None:
        try:
            raise PromptTooLongError(2000, 1024)
        except PromptTooLongError as error:
            raise HTTPException(400, str(error)) from error

    @app.get("/invalid")
    async def invalid() -> None:
        try:
            Shape.model_validate({"size": "secret", "sides": ["a", 1, 2, 3]})
        except ValidationError as error:
            raise HTTPException(400, str(error)) from error

    extend(app, ServeOptions())
    return TestClient(app)


def error(client: TestClient, path: str, method: str = "GET") -> tuple[int, Any]:
    answer = client.request(method, path)
    return answer.status_code, answer.json()["error"]


def test_a_model_is_found_by_a_name_with_a_slash(client: TestClient) -> None:
    assert client.get(f"/v1/models/{NAME}").json()["id"] == NAME
    assert client.get("/v1/models/openai%2Fgpt-oss-20b").json()["id"] == NAME
    status, told = error(client, "/v1/models/openai/other")
    assert (status, told["code"]) == (404, "model_not_found")
    assert told["message"] == "The model `openai/other` does not exist."


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(client: TestClient) -> None:
    assert error(client, "/too-long") == (
        400,
        {
            "message": "The prompt has 2000 tokens; this server takes 1024 for prompt and answer together.",
            "type": "invalid_request_error",
            "param": None,
            "code": "context_length_exceeded",
        },
    )


def test_faults_of_fields_are_told_by_name_and_without_their_values(client: TestClient) -> None:
    status, told = error(client, "/invalid")
    assert (status, told["param"]) == (400, "size")
    assert told["message"].startswith("`size`: Input should be a valid integer")
    assert told["message"].endswith("; `sides.2`: Input should be a valid string; and 1 more.")
    assert "secret" not in told["message"]


def test_paths_and_methods_that_are_not_there_are_told_in_openais_form(client: TestClient) -> None:
    assert error(client, "/v1/models", "PUT")[1]["message"] == "PUT is not a method of /v1/models."
    assert error(client, "/nothing")[0] == 404
