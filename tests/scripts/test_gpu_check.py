"""gpu_check.sh where it checks nothing: its words."""

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check.sh"


def call(option: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), option],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_runs_nothing(tmp_path: Path) -> None:
    done = call("--help", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Checks and measures everything that needs a Hopper GPU")
    assert "scripts/gpu_check.sh [RESULTS]\n" in done.stdout
    assert "set -uo" not in done.stdout
    assert not list(tmp_path.iterdir())


def test_an_option_that_is_none_is_no_folder(tmp_path: Path) -> None:
    done = call("--fast", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gpu_check.sh: there is no option --fast; --help tells more\n"
    assert not list(tmp_path.iterdir())
