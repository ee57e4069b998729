"""A picture of the experts' scales: heat maps of layers by experts, as SVG without a library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from gpt_oss_mxfp4.checkpoint.layout import PROJECTIONS
from gpt_oss_mxfp4.checkpoint.scale_statistics import ScaleStatistics

_COLORS = np.array(
    [
        (0x44, 0x01, 0x54),
        (0x47, 0x2D, 0x7B),
        (0x3B, 0x52, 0x8B),
        (0x2C, 0x72, 0x8E),
        (0x21, 0x91, 0x8C),
        (0x28, 0xAE, 0x80),
        (0x5E, 0xC9, 0x62),
        (0xAD, 0xDC, 0x30),
        (0xFD, 0xE7, 0x25),
    ]
)
"""Nine of viridis's colors, dark to light; equal steps look equal, to the color-blind too."""

_STEPS = 64
"""Shades that are told apart."""

_MAP_WIDTH = 360
_MAP_HEIGHT = 216
_LEFT, _TOP, _GAP_X, _GAP_Y = 56, 92, 124, 96
_TITLES = {"gate_up_proj": "gate and up", "down_proj": "down"}

Values = NDArray[np.float64]


def draw_expert_map(name: str, statistics: Mapping[str, ScaleStatistics]) -> str:
    """Draws mean and largest exponent and the share of zero scales, of both projections.

    Args:
        name: What the checkpoint is called.
        statistics: By projection.

    Returns:
        The SVG.
    """
    width = _LEFT + 3 * _MAP_WIDTH + 3 * _GAP_X
    height = _TOP + 2 * _MAP_HEIGHT + 2 * _GAP_Y - 24
    layers, experts = statistics[PROJECTIONS[0]].mean.shape
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 30, f"Scales of the experts of {name}", 'font-size="18" font-weight="600"'),
        _text(
            _LEFT,
            50,
            f"{layers} layers by {experts} experts; a scale is a power of two for each 32 codes",
            'fill="#666"',
        ),
    ]
    for row, projection in enumerate(PROJECTIONS):
        found = statistics[projection]
        panels = (
            ("mean exponent", found.mean, "{:.2f}"),
            ("largest exponent", found.largest, "{:g}"),
            ("share of zero scales", found.zero_share, "{:.2%}"),
        )
        for column, (title, values, form) in enumerate(panels):
            x = _LEFT + column * (_MAP_WIDTH + _GAP_X)
            y = _TOP + row * (_MAP_HEIGHT + _GAP_Y)
            heading = f"{_TITLES[projection]}: {title}"
            lines.append(_text(x, y - 10, heading, 'font-weight="600"'))
            lines += _panel(x, y, values, form)
    return "\n".join([*lines, "</svg>", ""])


def _panel(x: int, y: int, values: Values, form: str) -> Iterator[str]:
    """One heat map with its axes and its legend."""
    low, high = float(values.min()), float(values.max())
    shades = _shades(values, low, high)
    layers, experts = values.shape
    step_x, step_y = _MAP_WIDTH / experts, _MAP_HEIGHT / layers
    yield '<g shape-rendering="crispEdges">'
    for layer in range(layers):
        expert = 0
        for shade, run in groupby(shades[layer].tolist()):
            count = len(list(run))
            yield _rect(
                x + expert * step_x, y + layer * step_y, count * step_x, step_y, _color(shade)
            )
            expert += count
    yield "</g>"
    for layer in _ticks(layers):
        yield _text(
            x - 8, y + (layer + 0.5) * step_y + 4, str(layer), 'text-anchor="end" fill="#666"'
        )
    for expert in _ticks(experts):
        at = x + (expert + 0.5) * step_x
        yield _text(at, y + _MAP_HEIGHT + 16, str(expert), 'text-anchor="middle" fill="#666"')
    yield _text(
        x + _MAP_WIDTH / 2, y + _MAP_HEIGHT + 34, "expert", 'text-anchor="middle" fill="#666"'
    )
    middle = y + _MAP_HEIGHT / 2
    turned = f'text-anchor="middle" fill="#666" transform="rotate(-90 {x - 36} {middle})"'
    yield _text(x - 36, middle, "layer", turned)
    yield from _legend(x + _MAP_WIDTH + 12, y, low, high, form)


def _legend(x: float, y: float, low: float, high: float, form: str) -> Iterator[str]:
    """A column of the colors in use, its ends named; one color where all values are equal."""
    if low == high:
        yield _rect(x, y, 10, 14, _color(_STEPS // 2))
        yield _text(x + 16, y + 11, form.format(low))
        return
    step = _MAP_HEIGHT / _STEPS
    yield '<g shape-rendering="crispEdges">'
    for shade in range(_STEPS):
        yield _rect(x, y + (_STEPS - 1 - shade) * step, 10, step, _color(shade))
    yield "</g>"
    for value, at in ((high, 0.0), (low, 1.0)):
        yield _text(x + 16, y + 10 + at * (_MAP_HEIGHT - 12), form.format(value))


def _shades(values: Values, low: float, high: float) -> NDArray[np.int64]:
    """0 to _STEPS - 1; the middle where all values are equal."""
    if low == high:
        return np.full(values.shape, _STEPS // 2)
    scaled = (values - low) / (high - low) * (_STEPS - 1)
    return np.rint(scaled).astype(np.int64)


def _color(shade: int) -> str:
    at = shade / (_STEPS - 1) * (len(_COLORS) - 1)
    lower = min(int(at), len(_COLORS) - 2)
    mixed = _COLORS[lower] + (at - lower) * (_COLORS[lower + 1] - _COLORS[lower])
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def _ticks(count: int) -> range:
    """A few whole numbers below ``count``, evenly spaced."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if count <= step * 10)
    return range(0, count, step)


def _rect(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{color}"/>'
    )


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
