"""A made-up world appears as a whole or not at all, and never in place of a user's files."""
import pytest

from envs.lib.whole import write_whole


def one_file(path):
    with open(f"{path}/a.json", "w") as file:
        file.write("new")


def test_what_was_cut_leaves_nothing_under_the_name_and_the_next_call_begins_anew(tmp_path):
    def killed(path):
        one_file(f"{path}")
        (tmp_path / "sub/shop.unfinished/rest.json").touch()
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        write_whole(str(tmp_path / "sub/shop"), killed)
    assert not (tmp_path / "sub/shop").exists()
    write_whole(str(tmp_path / "sub/shop") + "/", one_file)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["shop"]
    assert [p.name for p in (tmp_path / "sub/shop").iterdir()] == ["a.json"]


def test_an_empty_folder_is_filled_and_a_full_one_is_left_alone(tmp_path):
    write_whole(str(tmp_path), one_file)
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(SystemExit, match="holds files already; name another folder"):
        write_whole(str(tmp_path), one_file)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="cannot write .*file"):
        write_whole(str(tmp_path / "file"), one_file)
    with pytest.raises(SystemExit, match="cannot write .*file/shop"):
        write_whole(str(tmp_path / "file/shop"), one_file)
