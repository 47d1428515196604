"""Base62: every number has one spelling of a given width."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.base62 import base62_decode, base62_encode

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

numbers = st.integers(0, 62**43 - 1)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "000"), (9, "009"), (10, "00A"), (35, "00Z"), (36, "00a"), (61, "00z"), (62, "010"), (62**2, "100"),
        (62**3 - 1, "zzz"), (2**16 - 1, "H31"), (0, "0"), (0, "0" * 60), (2**32 - 1, "4gfFC3"),
    ],
)  # fmt: skip
def test_known_numbers_have_their_known_spelling(number, text):
    assert base62_encode(number, len(text)) == text
    assert base62_decode(text) == number


@given(numbers, st.integers(43, 60))
@settings(deadline=None)
def test_what_was_encoded_decodes_to_itself(number, width):
    text = base62_encode(number, width)
    assert len(text) == width
    assert set(text) <= set(DIGITS)
    assert base62_decode(text) == number


@given(st.text(DIGITS, min_size=1, max_size=60))
@settings(deadline=None)
def test_whatever_decodes_is_the_one_spelling_of_its_number_in_that_width(text):
    assert base62_encode(base62_decode(text), len(text)) == text


@given(st.lists(numbers, min_size=2, max_size=20))
@settings(deadline=None)
def test_spellings_sort_as_their_numbers_do(several):
    assert sorted(several) == [base62_decode(text) for text in sorted(base62_encode(number, 43) for number in several)]


@given(st.integers(0, 50), st.integers(min_value=0, max_value=2**300))
@settings(deadline=None)
def test_what_does_not_fit_is_refused(width, excess):
    with pytest.raises(ValueError, match="fit"):
        base62_encode(62**width + excess, width)
    with pytest.raises(ValueError, match="fit"):
        base62_encode(-1 - excess, width)


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1 ", " 1", "1\n", "1_0", "1.0", "1,0", "\0", "é", "\u0661", "\uff11", "\u00b9", "\ud800", "A-", "A="],
    ids=ascii,
)  # fmt: skip
def test_any_other_character_is_refused(text):
    with pytest.raises(ValueError, match="digit"):
        base62_decode(text)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_hostile_text_is_a_number_or_refused(text):
    try:
        number = base62_decode(text)
    except ValueError:
        assert not text or set(text) - set(DIGITS)
    else:
        assert base62_encode(number, len(text)) == text
