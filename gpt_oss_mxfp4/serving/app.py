"""MAX's FastAPI app, with what is added to it and changed in it."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from max.pipelines.context.exceptions import PromptTooLongError
from max.serve.router.openai_routes import openai_get_model
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from gpt_oss_mxfp4.chat_page import add_chat_page
from gpt_oss_mxfp4.endpoint.errors import FieldError
from gpt_oss_mxfp4.serving.access_log import CURRENT
from gpt_oss_mxfp4.serving.errors import Rejected
from gpt_oss_mxfp4.serving.options import ServeOptions

SHOWN_FAULTS = 3
"""Of those that MAX's request models find, told in one message."""


def extend(app: FastAPI, options: ServeOptions) -> frozenset[str]:
    """Adds to MAX's app: the one place for further routes and handlers.

    Args:
        app: MAX's.
        options: what was asked for.

    Returns:
        Paths of added routes that are served without a key.
    """
    for kind in (HTTPException, StarletteHTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    # MAX's own route takes no slash, which every Hub id has.
    app.add_api_route("/v1/models/{model_id:path}", openai_get_model, response_model=None)
    return add_chat_page(app) if options.ui else frozenset()


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    rejected = _rejection(request, error)
    exchange = CURRENT.get()
    if exchange is not None:
        exchange.ended, exchange.why = "refused", rejected.code or rejected.param
    headers = getattr(error, "headers", None)
    return JSONResponse(rejected.envelope, rejected.status, headers)


def _rejection(request: Request, error: Exception) -> Rejected:
    cause = error.__cause__
    if isinstance(error, RequestValidationError) or isinstance(cause, ValidationError):
        return _invalid(error if isinstance(error, RequestValidationError) else cause)
    assert isinstance(error, StarletteHTTPException)
    if isinstance(cause, PromptTooLongError):
        return Rejected(
            400,
            f"The prompt has {cause.num_tokens} tokens; this server takes {cause.max_length} for prompt and answer "
            "together.",
            code="context_length_exceeded",
        )
    path, method = request.url.path, request.method
    if error.status_code == 405:
        return Rejected(405, f"{method} is not a method of {path}.")
    if error.status_code == 404 and path.startswith("/v1/models/"):
        name = path.removeprefix("/v1/models/")
        return Rejected(404, f"The model `{name[:60]}` does not exist.", code="model_not_found")
    detail = str(error.detail)
    if "--enable-structured-output" in detail:  # an option of max serve's
        detail = "`response_format` must be of type `text`: this server holds no answer to JSON."
        return Rejected(400, detail, "response_format")
    # MAX's InputError is the cause, whose cause is ours, if it is ours.
    ours = cause.__cause__ if cause is not None else None
    return Rejected(error.status_code, detail, ours.field if isinstance(ours, FieldError) else None)


def _invalid(error: object) -> Rejected:
    assert isinstance(error, ValidationError | RequestValidationError)
    faults = list(error.errors())
    told = [
        f"`{'.'.join(map(str, fault['loc'])) or 'body'}`: {fault['msg']}"
        for fault in faults[:SHOWN_FAULTS]
    ]
    more = len(faults) - len(told)
    text = "; ".join(told) + (f"; and {more} more" if more else "")
    field = str(faults[0]["loc"][0]) if faults[0]["loc"] else None
    # The name of a field that does not exist is the client's own text, which the log is not to have.
    code = "unknown_parameter" if faults[0]["type"] == "extra_forbidden" else None
    return Rejected(400, f"{text}.", field, code)
