"""The command as a process of its own: ``gpt-oss-mxfp4``, or ``python -m gpt_oss_mxfp4``."""

import sys

from gpt_oss_mxfp4 import cli


def main() -> int:
    """Runs the command without torch, which transformers would import where it is installed: seconds for nothing."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # what makes an import fail
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
