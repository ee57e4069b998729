"""What ./run installs: every package pinned and hashed, from any index, and as pyproject.toml says."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PYPROJECT["project"]["dependencies"]
TEST = RUNTIME + PYPROJECT["project"]["optional-dependencies"]["test"]
TRAIN = [
    *TEST,
    *(s for s in PYPROJECT["project"]["optional-dependencies"]["train"] if "[test]" not in s),
]
BENCH = [
    *TRAIN,
    *(s for s in PYPROJECT["project"]["optional-dependencies"]["bench"] if "[train]" not in s),
]
BUILD = [*PYPROJECT["build-system"]["requires"], "uv"]
SOURCES = {"build": BUILD, "runtime": RUNTIME, "test": TEST, "train": TRAIN, "bench": BENCH}

PIN = re.compile(r"[a-z0-9-]+==[^ ;]+( ; [^\\]+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(name: str) -> list[list[str]]:
    """Split a requirements file into logical lines, each into its pin and its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    lines = text.replace("\\\n", "\n ").split("\n")
    logical: list[list[str]] = []
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith(" "):
            logical[-1].append(line.strip())
        else:
            logical.append([line.strip()])
    return logical


def pins(name: str) -> dict[str, list[str]]:
    """Map each package to its versions: one, or one per range of Python versions."""
    found: dict[str, list[str]] = {}
    for pin, *_ in entries(name):
        package, version = pin.split(" ;")[0].split("==")
        found.setdefault(package, []).append(version.strip())
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_each_line_is_a_pin_with_hashes(name: str) -> None:
    for pin, *hashes in entries(name):
        assert PIN.fullmatch(pin), pin
        assert hashes, f"{pin} has no hash"
        assert all(HASH.fullmatch(line) for line in hashes), pin


@pytest.mark.parametrize("name", SOURCES)
def test_no_address_and_no_path_is_named(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    assert [line for line in text.splitlines() if "/" in line] == ["#    ./run requirements"]


@pytest.mark.parametrize("name", SOURCES)
def test_pins_agree_with_pyproject(name: str) -> None:
    pinned = pins(name)
    for source in map(Requirement, SOURCES[name]):
        versions = pinned.get(canonicalize_name(source.name))
        assert versions, f"{source} is not pinned: ./run requirements"
        assert all(source.specifier.contains(version) for version in versions), str(source)


def test_max_is_26_7_0() -> None:
    assert "max[serve]==26.7.0" in RUNTIME
    for name in ("runtime", "test", "train", "bench"):
        assert pins(name)["max"] == ["26.7.0"]


def test_training_has_all_that_tests_have() -> None:
    assert pins("train").items() >= pins("test").items()


def test_comparing_has_all_that_training_has() -> None:
    assert pins("bench").items() >= pins("train").items()


@pytest.mark.parametrize("name", ["build", "runtime"])
def test_versions_are_those_of_the_tests(name: str) -> None:
    test = pins("test")
    shared = {package: versions for package, versions in pins(name).items() if package in test}
    assert shared == {package: test[package] for package in shared}
    assert name == "build" or shared == pins("runtime")


def test_cpu_torch_of_linux_is_the_version_pinned_for_macos() -> None:
    assert runpy.run_path(str(ROOT / "run"))["TORCH"] == f"torch=={pins('test')['torch'][0]}+cpu"
    linux = {"sys_platform": "linux", "python_version": "3.11"}
    torch = next(source for source in map(Requirement, TEST) if source.name == "torch")
    assert torch.marker is not None
    assert not torch.marker.evaluate(linux), "on Linux this would be the CUDA build"
