from __future__ import annotations

import pytest

from corank.data.listing import list_samples
from corank.errors import DataError


def test_classes_are_sorted_folders_empty_ones_included() -> None:
    listing = list_samples(["dog/b.jpg", "ant/2.PNG", "dog/a.jpg"], ["dog", "ant", "cat"], "r")
    assert listing.names == ("ant/2.PNG", "dog/a.jpg", "dog/b.jpg")
    assert listing.class_names == ("ant", "cat", "dog")
    assert listing.labels is not None and listing.labels.tolist() == [0, 2, 2]


def test_a_wrapping_folder_is_looked_through() -> None:
    listing = list_samples(["set/a/1.jpg", "set/b/deep/er/1.jpg"], [], "r")
    assert listing.class_names == ("a", "b")
    assert listing.labels is not None and listing.labels.tolist() == [0, 1]


@pytest.mark.parametrize("files", [["1.jpg", "2.jpg"], ["photos/1.jpg"], ["1.jpg", "a/2.jpg", "b/3.jpg"]])
def test_flat_sets_have_no_labels(files: list[str]) -> None:
    listing = list_samples(files, [], "r")
    assert listing.names == tuple(files) and listing.labels is None and listing.class_names is None


def test_hidden_files_and_other_files_are_ignored() -> None:
    files = ["a/1.jpg", "b/1.jpg", "__MACOSX/a/._1.jpg", "a/.2.jpg", ".git/x.png", "README.md", "b/notes.txt"]
    assert list_samples(files, [".git", "__MACOSX"], "r").names == ("a/1.jpg", "b/1.jpg")


def test_nothing_found_says_what_was_looked_for() -> None:
    with pytest.raises(DataError, match=r"box holds no image; looked for \.jpg"):
        list_samples(["a.txt"], ["a"], "box")


def test_splits_are_not_classes() -> None:
    with pytest.raises(DataError, match="test, train"):
        list_samples(["train/a/1.jpg", "test/a/1.jpg"], [], "r")
