"""Train the demo model, write it as an MXFP4 checkpoint, and measure it.

    ./run train [--output FOLDER] [--steps N] [--seed N]

It took 37 minutes on 2 CPU cores of a Zen 4 that had nothing else to do (NOTES F18). The same seed on the same
processor and torch gives the same model.
Beside the checkpoint the folder gets `loss.json` and `loss.png`, `accuracy.json` and the model card.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from demo.architecture import make_config, make_model, remove_rounding
from demo.card import print_figures
from demo.evaluation import evaluate
from demo.export import export
from demo.loss_curve import draw_loss_curve, means
from demo.questions import accuracy, judge, standard_questions
from demo.tokenizer import make_tokenizer
from demo.torch_decoder import decode_in_torch
from demo.training import Recipe, Step, train

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Train, export, measure; the output folder appears when the checkpoint in it is whole."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "checkpoints" / "demo", help="default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="default: %(default)s")
    arguments = parser.parse_args()
    output: Path = arguments.output
    if output.exists():
        parser.error(f"--output: {output} exists already; remove it or name another folder")
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps)
    if recipe.steps <= recipe.warmup:
        parser.error(
            f"--steps: must be more than the warm-up's {recipe.warmup}, got {recipe.steps}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)

    begin = time.monotonic()
    tokenizer = make_tokenizer()
    model = make_model(make_config(tokenizer), recipe.seed)
    steps: list[Step] = []
    with tqdm(total=recipe.steps, unit="step") as bar:
        for step in train(model, tokenizer, recipe):
            steps.append(step)
            bar.set_postfix(loss=f"{step.loss:.4f}", accuracy=f"{step.accuracy:.4f}", refresh=False)
            bar.update()
    minutes = (time.monotonic() - begin) / 60

    remove_rounding(model, keep_rounded=False)
    questions = standard_questions()
    judged = judge(tokenizer, questions, decode_in_torch(model))
    parameters = sum(p.numel() for p in model.parameters())
    report = {
        "recipe": asdict(recipe),
        "parameters": parameters,
        "minutes": round(minutes, 1),
        "torch": torch.__version__,
        "questions": len(questions),
        "accuracy": {"float": accuracy(judged)},
    }
    with tempfile.TemporaryDirectory(dir=output.parent) as temporary:
        folder = Path(temporary) / "checkpoint"
        export(model, tokenizer, folder)
        (folder / "accuracy.json").write_text(json.dumps(report, indent=2) + "\n")
        curve = means(steps)
        (folder / "loss.json").write_text(json.dumps([asdict(step) for step in curve]) + "\n")
        draw_loss_curve(curve, folder / "loss.png")
        shutil.move(folder, output)
    print_figures(evaluate(output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
