"""The laws of keys, shares and lifetimes of remembered scores."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baleen_core.model.loaded import LoadedModel
from baleen_core.model.schema import (
    Asset,
    Batching,
    Device,
    Golden,
    GoldenInput,
    Instances,
    ModelSignal,
    Optimization,
    Precision,
    Preprocessing,
)
from baleen_sidecar.flow.lifetimes import counts, expiry
from baleen_sidecar.flow.score_keys import digest_of_file, digest_of_model, digest_of_text, key_of
from baleen_sidecar.flow.shares import Shares
from tiny_models import make_model

MODEL = make_model("words", recipe="tox-block/1")
LOADED = LoadedModel(model=MODEL, sha256="aa", text=object())


def digest(model=MODEL, sha256="aa", windows=64) -> bytes:
    return digest_of_model(replace(LOADED, model=model, sha256=sha256), limit_windows=windows)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(digest(replace(MODEL, name="words2")), id="another name"),
        pytest.param(digest(replace(MODEL, version="4")), id="another version"),
        pytest.param(digest(sha256="bb"), id="another file"),
        pytest.param(digest(windows=63), id="another limit of windows"),
        pytest.param(digest(replace(MODEL, preprocessing=Preprocessing(recipe="tox-block/2"))), id="another recipe"),
        pytest.param(
            digest(replace(MODEL, preprocessing=replace(MODEL.preprocessing, assets=(Asset(name="v", sha256="c"),)))),
            id="another asset",
        ),
        pytest.param(
            digest(replace(MODEL, signals=(ModelSignal(name="bad", output="probabilities", index=1),))),
            id="another place of a signal",
        ),
        pytest.param(
            digest(replace(MODEL, optimization=Optimization(precision=Precision.FP16))), id="another precision"
        ),
        pytest.param(digest(replace(MODEL, instances=Instances(kind=Device.GPU))), id="another device"),
    ],
)
def test_whatever_changes_scores_changes_the_digest(other: bytes) -> None:
    assert other != digest()


def test_what_changes_only_how_fast_it_answers_does_not() -> None:
    faster = replace(
        MODEL,
        batching=Batching(max_batch_size=64),
        instances=Instances(count=4),
        warmup_iterations=9,
        memory_bytes=1,
        golden=(Golden(input=GoldenInput(text="x"), expect=()),),
    )

    assert digest(faster) == digest()


variants = st.lists(st.text(max_size=8), max_size=4)


@given(one=variants, other=variants)
def test_texts_share_a_digest_only_if_they_are_equal(one: list[str], other: list[str]) -> None:
    assert (digest_of_text(one) == digest_of_text(other)) == (one == other)


def test_a_file_is_no_text_and_a_tenant_has_keys_of_its_own() -> None:
    file = digest_of_file("00" * 32)
    shared, owned = key_of([digest()], file), key_of([digest()], file, tenant="acme")

    assert file != digest_of_text([])
    assert len({shared, owned, key_of([digest()], file, tenant="other")}) == 3


@given(now=st.floats(0, 1e10), ttl=st.floats(1, 86_400), chance=st.floats(0, 1), waited=st.floats(0, 100_000))
def test_nothing_counts_for_longer_than_its_time_nor_ends_long_before(now, ttl, chance, waited) -> None:
    until = expiry(now, ttl_seconds=ttl, chance=chance)

    assert ttl * 0.89 <= until - now + 1e-5
    assert until <= now + ttl
    if waited >= ttl:
        assert not counts(until, now=now + waited + 1e-5, ttl_seconds=ttl)
    assert counts(until, now=now, ttl_seconds=ttl)


@pytest.mark.parametrize("until", [float("nan"), float("inf"), 2_000.0, -1.0])
def test_an_end_that_nobody_could_have_written_now_does_not_count(until: float) -> None:
    assert not counts(until, now=100.0, ttl_seconds=60.0)


steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 60)),
    max_size=60,
)


@given(steps=steps)
def test_no_tenant_has_more_than_its_share_and_gives_up_only_its_own(steps) -> None:
    shares, known = Shares[object](100), {}
    for what, tenant, number, size in steps:
        key = f"{tenant}{number}".encode()
        if what == "add":
            entry = object()
            known[key] = tenant, entry, size
            for each in shares.add(tenant, key, entry, size):
                owner, *_ = known.pop(each)
                assert owner == tenant
        elif key in known:
            shares.remove(*(known[key][0], key, known.pop(key)[1]))
        for each in "abc":
            has = sum(size for owner, _, size in known.values() if owner == each)
            assert shares.size_bytes(each) == has <= 100


def test_what_replaced_an_entry_goes_on_to_count_when_the_old_one_leaves() -> None:
    shares, old, new = Shares[object](100), object(), object()
    shares.add("a", b"k", old, 10)
    shares.add("a", b"k", new, 20)
    shares.remove("a", b"k", old)

    assert shares.size_bytes("a") == 20


def test_entries_of_nobody_are_not_counted() -> None:
    shares = Shares[object](100)

    assert shares.add("", b"k", object(), 1000) == ()
    assert shares.size_bytes("") == 0
