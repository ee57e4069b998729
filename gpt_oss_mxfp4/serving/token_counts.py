"""Counts the tokens of each exchange from what MAX measures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from max.serve.config import Settings
from max.serve.telemetry.metrics import METRICS, MaxMeasurement, MetricClient

from gpt_oss_mxfp4.serving.access_log import CURRENT

_FIELDS = {
    "maxserve.num_input_tokens": "prompt_tokens",
    "maxserve.num_output_tokens": "tokens",
}
"""What MAX measures at a request's end, in the task that works for it, and where it goes."""


class _Counting(MetricClient):
    """Passes measurements on, and adds tokens to the exchange that they are of."""

    def __init__(self, client: MetricClient) -> None:
        self._client = client

    def send_measurement(self, metric: MaxMeasurement) -> None:
        """Takes one."""
        name = _FIELDS.get(metric.instrument_name)
        exchange = CURRENT.get()
        if name is not None and exchange is not None:
            setattr(exchange, name, (getattr(exchange, name) or 0) + int(metric.value))
        self._client.send_measurement(metric)

    def transaction(self) -> AbstractContextManager[None]:
        """As the client passed on to."""
        return self._client.transaction()

    def cross_process_factory(
        self, settings: Settings
    ) -> Callable[[], AbstractAsyncContextManager[MetricClient]]:
        """As the client passed on to: requests are counted in this process."""
        return self._client.cross_process_factory(settings)


def count_tokens() -> None:
    """Begins to count; after MAX's metrics are configured."""
    METRICS.configure(_Counting(METRICS.client), METRICS.extra_attributes)
