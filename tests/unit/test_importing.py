"""What programs import is never looked through for garbage; what they make afterwards is."""

import gc

import pytest

from baleen_core.importing import lasting


def test_what_is_made_within_lasts_and_what_comes_after_is_collected():
    with lasting():
        assert not gc.isenabled()
        made = [[] for _ in range(1_000)]
        before = gc.get_freeze_count()

    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_an_import_that_fails_leaves_the_search_for_garbage_on():
    with pytest.raises(ImportError), lasting():
        raise ImportError

    assert gc.isenabled()
