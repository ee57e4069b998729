"""Whose tokenizer and templates a converted folder gets."""

from __future__ import annotations

from pathlib import Path

from gpt_oss_mxfp4.convert.companions import find_companion


def test_the_checkpoint_s_own_tokenizer_comes_before_that_of_the_folder_above(
    tmp_path: Path,
) -> None:
    source = tmp_path / "original"
    source.mkdir()
    assert find_companion(source, None) is None
    (tmp_path / "tokenizer.json").touch()
    assert find_companion(source, None) == tmp_path
    (source / "tokenizer.json").touch()
    assert find_companion(source, None) == source


def test_the_folder_above_is_found_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "model" / "original").mkdir(parents=True)
    (tmp_path / "model" / "tokenizer.json").touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "model" / "original")
    assert find_companion(link, None) == tmp_path / "model"


def test_only_a_folder_called_original_has_its_tokenizer_above(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "tokenizer.json").touch()
    assert find_companion(tmp_path / "other", None) is None
