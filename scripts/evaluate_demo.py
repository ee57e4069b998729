"""Measure a demo checkpoint anew: complete its accuracy.json, write its model card, print the figures.

    ./run python scripts/evaluate_demo.py [FOLDER]

Needs what `./run train` has installed.
"""

import argparse
import sys
from pathlib import Path

from demo.card import print_figures
from demo.evaluation import evaluate
from gpt_oss_mxfp4.options import DEMO_MODEL


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure a demo checkpoint.")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=DEMO_MODEL, help="default: the package's own"
    )
    print_figures(evaluate(parser.parse_args().folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
