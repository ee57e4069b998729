"""The command as a process of its own: ``gpt-oss-mxfp4``, or ``python -m gpt_oss_mxfp4``."""

import sys

# What makes an import fail: transformers would import torch where it is installed, seconds for nothing.
# Not in main(): the processes that a server starts import this module where the command was run, not `python -m`.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]

from gpt_oss_mxfp4 import cli  # noqa: E402


def main() -> int:
    """Runs the command."""
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
