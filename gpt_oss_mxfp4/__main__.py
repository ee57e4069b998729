"""The command as a process of its own: ``gpt-oss-mxfp4``, or ``python -m gpt_oss_mxfp4``."""

import sys

# What makes an import fail: transformers would import torch where it is installed, seconds for nothing.
# Not in main(): the processes that a server starts import this module where the command was run, not `python -m`.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def main() -> int:
    """Runs the command."""
    try:
        from gpt_oss_mxfp4 import cli

        return cli.main()
    except KeyboardInterrupt:  # before the command takes it by itself
        print("\ngpt-oss-mxfp4: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
