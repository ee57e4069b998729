"""ChunkedPrefill: MAX's iterator over a batch, with prompts prefilled a piece at a time."""

from __future__ import annotations

from max.pipelines.lib.generate import GenerateIterator


class ChunkedPrefill(GenerateIterator):
    """A batch whose prompts are prefilled in steps of no more than ``max_request_input_tokens`` tokens a place.

    What a step takes for activations is bounded then, whatever the prompts, as it is in a server, and whoever reads
    the steps may stop between two of them. A step of a prompt that is not at its end gives no token. Sequences share
    the tokens of all places evenly, so that the tokens of the shorter prompts begin first.
    """

    def step(self) -> dict[int, list[int]]:
        """Runs one step over all sequences that are not done; see MAX's."""
        pipeline = self._pipeline
        assert pipeline is not None
        of_each = pipeline.pipeline_config.runtime.max_request_input_tokens
        share = of_each * pipeline.max_batch_size // len(self._live)
        for row in self._live:
            context = self._contexts[row]
            if context.tokens.active_length > share:
                # What the cache holds of it already is left out before the rest is cut.
                pipeline.kv_manager.alloc(context).synchronize()
            if context.tokens.active_length > share:
                context.tokens.chunk(share)
        return super().step()
