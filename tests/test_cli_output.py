"""What commands write into files: the whole of it, or nothing new."""

from __future__ import annotations

from pathlib import Path

import pytest

from calls.errors import CalltallyError
from cli.output import whole_file


def interrupted_at_half(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Its folder holds nothing else afterwards, however long its name."""
    path = tmp_path / ("n" * 200 + ".csv")
    for content in (b"old", b"new"):
        with whole_file(path) as file:
            file.write(content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """No half file, and none beside it."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_at_half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    """Where the file beside it can neither be made nor removed, as on a read-only disk, nothing is said of that one."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "report.html"
    with pytest.raises(CalltallyError) as failed, whole_file(path):
        raise AssertionError
    assert failed.value.message == f"{path} cannot be written: Not a directory."


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    """In a sentence, before anything is computed for it."""
    with pytest.raises(CalltallyError, match="is a folder"), whole_file(tmp_path):
        raise AssertionError
    with pytest.raises(CalltallyError, match="cannot be written: No such file"), whole_file(tmp_path / "no" / "f"):
        raise AssertionError
