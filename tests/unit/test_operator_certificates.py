"""The webhooks' certificate: when which step comes, and what is made."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from baleen_operator.adapters.certificates import make_pair, read_pair
from baleen_operator.plan.certificates import BACKDATED, Life, Step, next_step

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def life(*, age_days: float, left_days: float) -> Life:
    return Life(begin=NOW - age_days * DAY - BACKDATED, end=NOW + left_days * DAY)


FRESH, DUE, EXPIRED = life(age_days=1, left_days=89), life(age_days=61, left_days=29), life(age_days=90, left_days=-1)


@pytest.mark.parametrize(
    ("serving", "following", "is_trusted", "step"),
    [
        (None, None, False, Step.REPLACE),
        (EXPIRED, None, True, Step.REPLACE),
        (FRESH, None, False, Step.KEEP),
        (DUE, None, True, Step.PREPARE),
        (DUE, FRESH, False, Step.KEEP),
        (DUE, FRESH, True, Step.PROMOTE),
        (DUE, EXPIRED, True, Step.PREPARE),
        # With nothing to lose there is nothing to wait for.
        (EXPIRED, FRESH, False, Step.PROMOTE),
        (None, FRESH, False, Step.PROMOTE),
    ],
)
def test_the_steps_of_a_rotation(serving: Life | None, following: Life | None, is_trusted: bool, step: Step):
    assert next_step(serving, following, now=NOW, is_trusted=is_trusted) is step


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60))
def test_however_often_it_is_looked_at_what_serves_is_trusted_and_valid(looks: list[tuple[float, bool]]):
    now, serving, following, trusted = NOW, None, None, set[Life]()
    for days, has_settled in looks:
        now += days * DAY
        step = next_step(serving, following, now=now, is_trusted=has_settled and following in trusted)
        made = Life(begin=now - BACKDATED, end=now + 90 * DAY)
        if step is Step.REPLACE:
            serving, trusted = made, {made}
        elif step is Step.PREPARE:
            following = made
            trusted.add(made)
        elif step is Step.PROMOTE:
            serving, following = following, None
        assert serving is not None
        assert serving.is_valid(now)
        assert serving in trusted


def test_a_pair_names_what_it_is_for_and_nothing_else_is_signed_by_its_authority():
    made = make_pair(("baleen-webhook.baleen-system.svc", "127.0.0.1", "fd00::1"), NOW, 90 * DAY)
    pair = read_pair(made.certificate, made.key, ("127.0.0.1",))
    read = x509.load_pem_x509_certificate(made.certificate)
    read.verify_directly_issued_by(x509.load_pem_x509_certificate(made.authority))

    assert pair.life == Life(begin=NOW - BACKDATED, end=NOW + 90 * DAY)
    assert made.authority not in made.certificate
    assert b"PRIVATE" not in made.authority + made.certificate
    assert "PRIVATE" not in repr(pair) + repr(made)


def test_a_pair_that_cannot_serve_says_why():
    one, other = (make_pair(("a.svc",), NOW, DAY) for _ in range(2))
    for certificate, key, names, said in (
        (b"", b"", ("a.svc",), "not there"),
        (b"x", b"x", ("a.svc",), "PEM"),
        (one.certificate, other.key, ("a.svc",), "another certificate"),
        (one.certificate, one.key, ("a.svc", "b.svc"), r"does not name b\.svc"),
        (one.authority, one.key, ("a.svc",), "another certificate"),
    ):
        with pytest.raises(ValueError, match=said):
            read_pair(certificate, key, names)
