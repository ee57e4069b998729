"""HarmonyToolParser: MAX's hook that finds calls in an answer's text, and hears of ``tool_choice``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from max.pipelines.context.exceptions import InputError
from max.pipelines.lib.tool_parsing import generate_call_id, names_from_tools
from max.pipelines.modeling.types import (
    ParsedToolCall,
    ParsedToolCallDelta,
    ParsedToolResponse,
    ToolParser,
)

from gpt_oss_mxfp4.endpoint.calls import ARGUMENTS, CALL, END, MARKS
from gpt_oss_mxfp4.harmony import CHANNEL, CONSTRAIN, MESSAGE


class HarmonyToolParser(ToolParser):
    """Reads the calls that ``write_call`` wrote amid an answer's text; how it is cut into pieces changes nothing."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins another text."""
        self._index = -1
        self._name: str | None = None  # so far, of the call whose name is being read
        self._in_call = False
        self._arguments = False  # whether the call that is being read has any

    def parse_delta(self, delta: str) -> list[ParsedToolCallDelta]:
        """Gives what the next piece of a text holds, in order: answer, and calls begun or gone on with."""
        parts = [part for part in MARKS.split(delta) if part]
        return [found for part in parts if (found := self._take(part)) is not None]

    def _take(self, part: str) -> ParsedToolCallDelta | None:
        """Takes a mark or a text between two."""
        if part == CALL:
            self._index, self._name = self._index + 1, ""
            self._in_call, self._arguments = True, False
        elif part == ARGUMENTS:
            name, self._name = self._name, None
            return ParsedToolCallDelta(index=self._index, id=generate_call_id(), name=name)
        elif part == END:
            self._in_call = False
            if not self._arguments:  # a call must have some JSON, which clients parse
                return ParsedToolCallDelta(index=self._index, arguments="{}")
        elif self._name is not None:
            self._name += part
        elif self._in_call:
            self._arguments = True
            return ParsedToolCallDelta(index=self._index, arguments=part)
        else:
            return ParsedToolCallDelta(index=0, content=part)
        return None

    def parse_complete(self, response: str) -> ParsedToolResponse:
        """Gives the answer in a whole text, and the calls beside it."""
        self.reset()
        content = ""
        calls: list[ParsedToolCall] = []
        for delta in self.parse_delta(response):
            content += delta.content or ""
            if delta.name is not None:
                calls.append(ParsedToolCall(id=delta.id, name=delta.name, arguments=""))
            elif delta.arguments is not None:
                calls[-1].arguments += delta.arguments
        return ParsedToolResponse(content=content, tool_calls=calls)

    def set_streaming_tool_schemas(self, schemas: Mapping[str, dict[str, Any]]) -> None:
        """Does nothing: arguments are JSON, whatever the schemas."""

    def generate_tool_call_grammar(
        self,
        *,
        response_format_schema: dict[str, Any] | None,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: str | dict[str, Any] | None,
        **_unused: Any,
    ) -> str:
        """Gives the beginning of the answer that ``tool_choice`` asks for: a call's header, no grammar.

        MAX hands it to the tokenizer as the request's response format, which appends it to the prompt (NOTES N61).

        Args:
            response_format_schema: what the answer's JSON is to be, if anything.
            tools: what may be called: the one that is named, or all.
            tool_choice: of the request.

        Raises:
            InputError: a schema is given as well: an answer would be held to it, a call not.
        """
        if response_format_schema is not None:
            raise InputError("response_format: must be left out where tools are given")
        if tool_choice in (None, "auto", "none"):
            return ""
        names = names_from_tools(tools) or []
        return call_header(names[0] if len(names) == 1 else None)


def call_header(tool: str | None) -> str:
    """Writes a call's header as gpt-oss does, up to where the model goes on.

    Args:
        tool: name of what is called; None where the model is to choose.
    """
    header = f"{CHANNEL}commentary to=functions"
    return header if tool is None else f"{header}.{tool} {CONSTRAIN}json{MESSAGE}"
