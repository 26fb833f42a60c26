"""The token file: every way in which it is mended is noticed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefactor_worker.token import FileToken


def _write(file: Path) -> None:
    file.write_text("second")


def _replace(file: Path) -> None:
    new = file.with_name("new")
    new.write_text("second")
    new.replace(file)


def _swap_a_link(file: Path) -> None:
    """As Kubernetes does it: the file is a link into a folder that is a link, and that one is exchanged."""
    for name in ("one", "two"):
        (file.parent / name).mkdir(exist_ok=True)
    (file.parent / "two" / "token").write_text("second")
    new = file.parent / "..data_tmp"
    new.symlink_to("two")
    new.replace(file.parent / "..data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "token").write_text("first")
    (tmp_path / "..data").symlink_to("one")
    file = tmp_path / "token"
    file.symlink_to("..data/token")
    return file


@pytest.mark.parametrize("mend", [_write, _replace, _swap_a_link])
def test_a_change_is_seen_by_the_files_state(file: Path, mend: Callable[[Path], None]) -> None:
    token = FileToken(file)
    assert token.current() == "first"
    mend(file)
    assert token.current() == "second"


def test_a_change_of_the_content_alone_is_seen_when_it_is_read_again(file: Path) -> None:
    token, before = FileToken(file), file.stat()
    file.write_text("fresh")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert token.current() == "first", "nothing hints at it"
    token.reread()
    assert token.current() == "fresh"


def test_a_file_that_is_gone_leaves_the_last_token_and_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = FileToken(file)
    file.unlink()
    for _ in range(3):
        token.reread()
        assert token.current() == "first"
    assert len(caplog.records) == 1
    file.write_text("second")
    assert token.current() == "second"
    assert "second" not in caplog.text
