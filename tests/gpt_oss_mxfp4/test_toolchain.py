"""What compiled code depends on besides its graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_oss_mxfp4 import toolchain

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
cpu MHz\t\t: 2596.094
flags\t\t: fpu avx2 avx512_bf16

processor\t: 1
flags\t\t: fpu
"""


def test_vector_extensions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: CPUINFO)
    assert toolchain.vector_extensions() == {"avx2", "avx512_bf16"}


def features(monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda path: text)
        return toolchain.cpu_features()


def test_versions_are_those_of_the_packages_that_compile() -> None:
    assert toolchain.versions() == ("26.7.0", "26.7.0", "1.2.0")


def test_a_package_that_is_called_otherwise_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PACKAGES", ("no such package",))
    assert toolchain.versions() == ("not installed",)


def test_features_are_those_of_the_first_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    told = features(monkeypatch, CPUINFO)
    assert "avx512_bf16" in told
    assert told == features(monkeypatch, CPUINFO.replace("2596.094", "1200.000"))
    for old, new in ((" avx512_bf16", ""), (": 17", ": 97"), ("AMD", "Intel")):
        assert features(monkeypatch, CPUINFO.replace(old, new)) != told


def test_features_of_an_arm_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd4f\n"
    told = features(monkeypatch, text)
    assert "bf16" in told
    assert "0xd4f" in told
    assert "243" not in told


def test_settings_are_those_that_change_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = toolchain.settings()
    monkeypatch.setenv("MODULAR_CACHE_DIR", "/elsewhere")
    assert toolchain.settings() == before
    monkeypatch.setenv("MODULAR_MAX_DEBUG_ASSERT_LEVEL", "all")
    assert toolchain.settings() == tuple(
        sorted([*before, ("MODULAR_MAX_DEBUG_ASSERT_LEVEL", "all")])
    )
