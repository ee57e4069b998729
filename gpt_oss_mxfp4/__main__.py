"""``python -m gpt_oss_mxfp4`` is the command ``gpt-oss-mxfp4``, where the package is not installed."""

import sys

from gpt_oss_mxfp4.cli import main

sys.exit(main())
