"""Whose policy a decision on record names, with a namespace and without one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, json

from baleen_core.records import PolicyRef, Trial, decode_record, encode
from judged_records import ALLOW, BLOCK, OURS, decided, on_record, ref, tried

LOOKED_FOR = on_record(digests="ab")
refs = st.builds(
    ref,
    st.sampled_from("abc"),
    name=st.sampled_from(["community", "kids"]),
    namespace=st.sampled_from([OURS, "elsewhere", UNSET]),
)


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        pytest.param(ref("z"), True, id="namespace and name"),
        pytest.param(ref("a", namespace="elsewhere"), False, id="another namespace, whatever the revision"),
        pytest.param(ref("a", name="kids", namespace=UNSET), False, id="another name, whatever the revision"),
        pytest.param(ref("b", namespace=UNSET), True, id="no namespace, and a revision of the policy"),
        pytest.param(ref("c", namespace=UNSET), None, id="no namespace, and a revision that may be anybody's"),
        pytest.param(tried(ALLOW, BLOCK, stable="z"), True, id="a rollout of the policy"),
        pytest.param(tried(ALLOW, BLOCK, namespace="elsewhere"), False, id="a rollout elsewhere"),
        pytest.param(
            tried(ALLOW, BLOCK, namespace=UNSET, stable="a"), True, id="a rollout beside one of its revisions"
        ),
        pytest.param(tried(ALLOW, BLOCK, namespace=UNSET, stable="c"), None, id="a rollout of somebody"),
    ],
)
def test_a_record_means_a_policy_or_not_or_says_too_little(named: PolicyRef | Trial, meant: bool | None) -> None:
    assert LOOKED_FOR.is_meant(named) is meant


@given(named=st.lists(refs, max_size=4))
def test_one_that_is_meant_is_enough_and_one_that_may_be_leaves_it_open(named: list[PolicyRef]) -> None:
    each = [LOOKED_FOR.is_meant(one) for one in named]

    assert LOOKED_FOR.had_part(decided(ALLOW, *named)) is (True if True in each else None if None in each else False)


def test_a_record_of_an_earlier_release_has_the_bytes_that_it_had() -> None:
    written = encode(decided(ALLOW, ref("a", namespace=UNSET), trials=(tried(ALLOW, BLOCK, namespace=UNSET),)))

    assert b"namespace" not in written
    assert encode(decode_record(written)) == written


def test_a_new_record_says_the_namespace_of_all_that_judged() -> None:
    written = json.decode(encode(decided(ALLOW, ref("a"), trials=(tried(ALLOW, BLOCK),))))

    assert [each["namespace"] for each in written["decision"]["policies"]] == [OURS]
    assert [each["namespace"] for each in written["decision"]["trials"]] == [OURS]
