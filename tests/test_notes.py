"""What a run has to tell, collected."""

from __future__ import annotations

import threading

from corank.notes import collected_notes, note


def test_notes_are_collected_once_and_in_order() -> None:
    note("to nobody")
    with collected_notes() as notes:
        note("b")
        note("a", samples=3)
        note("b")
    note("too late")
    assert list(notes.texts) == ["b", "a"] and notes.numbers == {"samples": 3}


def test_inner_notes_reach_the_outer_collection_with_what_they_are_about() -> None:
    with collected_notes() as outer:
        with collected_notes("layer 'a': ") as inner:
            note("damped", count=1)
        note("done")
    assert list(inner.texts) == ["layer 'a': damped"]
    assert list(outer.texts) == ["layer 'a': damped", "done"] and outer.numbers == {"count": 1}


def test_another_threads_notes_are_its_own() -> None:
    with collected_notes() as notes:
        thread = threading.Thread(target=lambda: note("elsewhere"))
        thread.start()
        thread.join()
    assert not notes.texts
