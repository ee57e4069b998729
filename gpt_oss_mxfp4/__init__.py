"""gpt-oss from its MXFP4 checkpoints on MAX: ``max ... --custom-architectures gpt_oss_mxfp4`` imports this.

``ARCHITECTURES`` is made on first use: importing the package, for its checkpoint reader say, does not import MAX.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt_oss_mxfp4.arch import ARCHITECTURES

__all__ = ["ARCHITECTURES"]


def __getattr__(name: str) -> object:
    if name == "ARCHITECTURES":
        from gpt_oss_mxfp4.arch import ARCHITECTURES

        return ARCHITECTURES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
