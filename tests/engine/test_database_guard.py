"""A daemon does not go on with a database file that was taken from under it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuq.engine.home_mark import HomeMark
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.records import Standing
from gpuq.stores import sql
from gpuq.stores.sql import Database, DatabaseGuard


@pytest.fixture
def database(tmp_path: Path) -> Database:
    url = f"sqlite:///{tmp_path}/home/gpuq.db"
    (tmp_path / "home").mkdir()
    sql.migrate.ensure(url)
    return Database(url)


def _remove(file: Path) -> None:
    file.unlink()


def _move_another_over_it(file: Path) -> None:
    other = file.with_name("copy.db")
    other.write_bytes(file.read_bytes())
    other.rename(file)


def _move_it_aside(file: Path) -> None:
    file.rename(file.with_name("bad.db"))
    file.write_bytes(b"")


@pytest.mark.parametrize("spoil", [_remove, _move_another_over_it, _move_it_aside])
def test_a_file_that_is_no_longer_the_homes_is_neither_read_nor_written(
    database: Database, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    DatabaseGuard(database)
    for begin in (database.read, database.write, database.write_on_driver):
        with begin():
            pass
    spoil(tmp_path / "home" / "gpuq.db")
    for begin in (database.read, database.write, database.write_on_driver):
        with pytest.raises(DatabaseUnavailable, match="removed or replaced") as told, begin():
            pass
        assert told.value.hint is not None
        assert "gpuq down" in told.value.hint
    database.close()


def test_a_file_that_is_away_with_its_home_is_still_the_homes(database: Database, tmp_path: Path) -> None:
    DatabaseGuard(database)
    with database.write_on_driver():
        pass
    (tmp_path / "home").rename(tmp_path / "away")
    with database.write_on_driver():
        pass
    database.close()


@pytest.mark.parametrize("filled", [False, True])
def test_nothing_is_answered_while_another_folder_is_in_the_place_of_the_home(
    database: Database, tmp_path: Path, filled: bool
) -> None:
    """The mount point of a disk that is not mounted any more, and what somebody may have put into it."""
    home, away = tmp_path / "home", tmp_path / "away"
    DatabaseGuard(database)
    for begin in (database.read, database.write, database.write_on_driver):
        with begin():
            pass
    home.rename(away)
    home.mkdir()
    if filled:
        sql.migrate.ensure(f"sqlite:///{home}/gpuq.db")
    for begin in (database.read, database.write, database.write_on_driver):
        with pytest.raises(DatabaseUnavailable, match="is its disk mounted") as told, begin():
            pass
        assert "mount it" in (told.value.hint or "")
    shutil.rmtree(home)
    away.rename(home)
    with database.write_on_driver():
        pass
    database.close()


def test_a_disk_that_comes_back_with_other_numbers_is_known_by_its_mark(database: Database, tmp_path: Path) -> None:
    mark = HomeMark(tmp_path / "home")
    mark.take("a", Standing("a", 0, 0, 0, 0))
    DatabaseGuard(database, mark.is_in)
    with database.write():
        pass
    (tmp_path / "home").rename(tmp_path / "away")
    shutil.copytree(tmp_path / "away", tmp_path / "home")
    with database.write():
        pass
    (tmp_path / "home" / "installation.json").unlink()
    with pytest.raises(DatabaseUnavailable, match="is its disk mounted"), database.write():
        pass
    HomeMark(tmp_path / "home").take("b", Standing("b", 0, 0, 0, 0))
    with pytest.raises(DatabaseUnavailable, match="is its disk mounted"), database.write():
        pass
    database.close()


def test_what_is_refused_stays_refused_and_room_is_made_before_a_write(database: Database) -> None:
    made: list[str] = []
    database.make_room = lambda: made.append("room")
    guard = DatabaseGuard(database)
    with database.write():
        pass
    guard.refuse("the database is older than this home")
    for begin in (database.read, database.write, database.write_on_driver):
        with pytest.raises(DatabaseUnavailable, match="older than this home"), begin():
            pass
    assert made == ["room"]
    database.close()
