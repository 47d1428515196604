"""Strict base64url and strict JSON: every byte string has one spelling, every text one meaning."""

import base64
import json
import math
import re
import time
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.encoding import b64url_decode, b64url_encode, json_decode_object, json_encode, json_encode_exactly

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# -- base64url ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", b""),
        (b"f", b"Zg"),
        (b"fo", b"Zm8"),
        (b"foo", b"Zm9v"),
        (b"foob", b"Zm9vYg"),
        (b"\xfb\xff\xfe", b"-__-"),
        # RFC 7515 appendix C
        (bytes([3, 236, 255, 224, 193]), b"A-z_4ME"),
    ],
)
def test_known_bytes_have_their_known_spelling(data, text):
    assert b64url_encode(data) == text
    assert b64url_decode(text) == data


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_what_was_encoded_decodes_to_itself(data):
    assert b64url_decode(b64url_encode(data)) == data


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_the_spelling_is_the_standard_librarys_without_padding(data):
    assert b64url_encode(data) == base64.urlsafe_b64encode(data).rstrip(b"=")


@given(st.lists(st.sampled_from(ALPHABET + b"+/= \n.\x00\x80\xff"), max_size=12).map(bytes))
@settings(deadline=None, max_examples=500)
def test_rfc7515_2_whatever_decodes_is_the_one_spelling_of_its_bytes(text):
    try:
        decoded = b64url_decode(text)
    except ValueError:
        canonical = re.fullmatch(rb"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1
        assert not canonical or base64.urlsafe_b64encode(base64.urlsafe_b64decode(text + b"==")).rstrip(b"=") != text
    else:
        assert base64.urlsafe_b64encode(decoded).rstrip(b"=") == text


@pytest.mark.parametrize("size", [1, 2, 4, 5, 31, 32, 64, 256])
def test_rfc7515_2_of_all_last_characters_only_one_is_a_spelling_of_the_same_bytes(size):
    data = bytes(range(size % 256)) + b"\xa5"
    text = b64url_encode(data)
    same = []
    for last in ALPHABET:
        try:
            if b64url_decode(text[:-1] + bytes([last])) == data:
                same.append(last)
        except ValueError:
            pass
    assert bytes(same) == text[-1:]


@pytest.mark.parametrize("last", [c for c in ALPHABET if c not in b"AQgw"])
def test_rfc7515_2_four_unused_bits_must_be_zero(last):
    with pytest.raises(ValueError):
        b64url_decode(b"Z" + bytes([last]))


@pytest.mark.parametrize("last", [c for c in ALPHABET if c not in b"AEIMQUYcgkosw048"])
def test_rfc7515_2_two_unused_bits_must_be_zero(last):
    with pytest.raises(ValueError):
        b64url_decode(b"Zm" + bytes([last]))


@pytest.mark.parametrize(
    "text", [b"Zg==", b"Zg=", b"Zm8=", b"Zm9v=", b"Zm9v====", b"=", b"==", b"====", b"Z=g=", b"=Zg"]
)
def test_rfc7515_2_padding_is_refused(text):
    with pytest.raises(ValueError):
        b64url_decode(text)


@pytest.mark.parametrize("text", [b"-__+", b"-__/", b"+/+/", b"+-", b"/w"])
def test_rfc7515_2_the_other_alphabet_is_refused(text):
    with pytest.raises(ValueError):
        b64url_decode(text)


@pytest.mark.parametrize("text", [b"Z", b"Zm9vY", b"A" * 1001])
def test_rfc7515_2_impossible_lengths_are_refused(text):
    with pytest.raises(ValueError):
        b64url_decode(text)


def test_rfc7515_2_no_other_byte_is_skipped_wherever_it_stands():
    text = b"Zm9vYmFy"
    for junk in set(range(256)) - set(ALPHABET):
        for position in range(len(text) + 1):
            with pytest.raises(ValueError):
                b64url_decode(text[:position] + bytes([junk]) + text[position:])


# -- JSON ---------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)


@given(json_objects)
@settings(deadline=None)
def test_an_object_that_was_encoded_decodes_to_itself(value):
    assert json_decode_object(json_encode(value)) == value


@given(json_objects, st.sampled_from([None, 1, "\t"]), st.booleans())
@settings(deadline=None)
def test_other_spellings_of_an_object_mean_the_same(value, indent, ensure_ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii).encode()
    assert json_decode_object(text) == value


@given(
    json_objects,
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(list(b'{}[]",:\\u0019e.-+ntf \n\x00\xff\xc0'))), max_size=3
    ),
)
@settings(deadline=None, max_examples=400)
def test_hostile_text_is_refused_or_means_what_the_standard_library_reads(value, changes):
    text = bytearray(json.dumps(value, ensure_ascii=False).encode())
    for position, byte in changes:
        text[position % len(text)] = byte
    try:
        decoded = json_decode_object(bytes(text))
    except ValueError:
        return
    assert decoded == json.loads(bytes(text).decode("utf-8"))
    assert json_decode_object(json_encode(decoded)) == decoded


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_arbitrary_bytes_raise_nothing_but_value_error(data):
    try:
        assert isinstance(json_decode_object(data), dict)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"\\u0061":1,"a":2}',
        b'{"":1,"":2}',
        b'{"b":{"a":1,"a":2}}',
        b'{"b":[{"c":[{"a":1,"a":2}]}]}',
        b'{ "a": 1, "a": 2 }',
        b'{"__proto__":1,"__proto__":2}',
        '{"ä":1,"\\u00e4":2}'.encode(),
        b'{"a":1.0,"a":1e0}',
    ],
)
def test_rfc7515_4_duplicate_names_are_refused_at_any_depth(text):
    with pytest.raises(ValueError, match="duplicate"):
        json_decode_object(text)


@pytest.mark.parametrize(
    "text",
    [b'{"a":{"b":1},"c":{"b":1}}', b'[{"a":1},{"a":1}]'.join([b'{"x":', b"}"]), b'{"a":1,"A":2}', b'{"a":"a","b":"a"}'],
)
def test_one_name_in_several_objects_is_no_duplicate(text):
    assert json_decode_object(text) == json.loads(text)


def test_names_that_only_look_alike_are_no_duplicates():
    composed, decomposed = "\u00e9", "e\u0301"
    assert len(json_decode_object(json.dumps({composed: 1, decomposed: 2}).encode())) == 2


@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "1e400",
        "-1e400",
        "1e99999",
        "01",
        "+1",
        ".5",
        "1.",
        "0x1",
        "1_000",
        "--1",
        "1e",
        "९",
    ],
)
def test_numbers_that_json_has_not_are_refused(number):
    with pytest.raises(ValueError):
        json_decode_object(f'{{"a":{number}}}'.encode())


def test_an_integer_of_many_digits_is_read_exactly_or_refused():
    assert json_decode_object(b'{"a":18446744073709551617}') == {"a": 2**64 + 1}
    with pytest.raises(ValueError):
        json_decode_object(b'{"a":' + b"9" * 5000 + b"}")


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_rfc8725_3_7_only_utf_8_without_a_byte_order_mark_is_read(encoding):
    with pytest.raises(ValueError):
        json_decode_object('{"a":"b"}'.encode(encoding))


@pytest.mark.parametrize(
    "broken",
    [
        b"\xff",
        b"\xc0\xaf",
        b"\xc1\x81",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xc3",
        b"\x80",
    ],
    ids=[
        "never a byte",
        "overlong slash",
        "overlong A",
        "overlong three",
        "high surrogate",
        "low surrogate",
        "beyond",
        "cut",
        "alone",
    ],
)
def test_rfc8725_3_7_invalid_utf_8_is_refused_in_names_and_values(broken):
    for text in (b'{"a":"%s"}' % broken, b'{"%s":1}' % broken, b'{"a" :"%s"}' % broken):
        with pytest.raises(ValueError):
            json_decode_object(text)


@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"\udc00\ud800", r"\ud800x", r"\ud800\ud800", r"\uD83D"])
def test_rfc8725_3_7_lone_surrogates_are_refused(escape):
    for text in (f'{{"a":"{escape}"}}', f'{{"{escape}":1}}', f'{{"a":["{escape}"]}}'):
        with pytest.raises(ValueError):
            json_decode_object(text.encode())


def test_a_surrogate_pair_is_one_character():
    assert json_decode_object(rb'{"a":"\ud83d\ude00"}') == {"a": "😀"}


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"[]", b"null", b"true", b"1", b'"{}"', b"{", b"}", b"{}}", b"{}{}", b'{} {"a":1}', b"{}\x00", b"\x00{}",
        b"{}x", b"{},", b'{"a":1,}', b"{,}", b'{"a"}', b'{"a":}', b"{a:1}", b"{'a':1}", b"{1:1}", b'{"a":1 "b":2}',
        b'{"a":"\n"}', b'{"a":"\t"}', b'{"a":"\x1f"}', b'{"a":"\\x41"}', b'{"a":"\\u12"}', b'{"a":"b}', b"// c\n{}",
        b'{"a":undefined}', b'{"a":TRUE}', b"{}\xc2\xa0", b"{}\x0b", b"[" * 40,
    ],
)  # fmt: skip
def test_what_is_not_exactly_one_object_is_refused(text):
    with pytest.raises(ValueError):
        json_decode_object(text)


@pytest.mark.parametrize("text", [b" {}", b"{} ", b"\n{\r\n}\t"])
def test_whitespace_that_json_allows_is_allowed(text):
    assert json_decode_object(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":"\\"","b":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
    ids=["objects", "arrays", "deep objects", "unclosed arrays", "behind an escaped quote"],
)
def test_deep_nesting_is_refused_at_once(text):
    started = time.perf_counter()
    with pytest.raises(ValueError):
        json_decode_object(text)
    assert time.perf_counter() - started < 1


def test_moderate_nesting_and_much_breadth_are_fine():
    deep = b'{"a":' * 32 + b"1" + b"}" * 32
    assert json_encode(json_decode_object(deep)) == deep
    wide = {"a": [[] for _ in range(500)], "b": [{} for _ in range(500)]}
    assert json_decode_object(json_encode(wide)) == wide


def test_brackets_inside_strings_are_no_nesting():
    value = {"a": "[{" * 100, 'quo"te[': "\\[[" * 50}
    assert json_decode_object(json_encode(value)) == value


def nothing_else(value):
    """The same value of the same types, all the way down."""
    return (type(value), [nothing_else(inner) for inner in value.values()] if isinstance(value, dict) else value)


@given(json_objects)
@settings(deadline=None)
def test_what_is_encoded_exactly_comes_back_as_it_went_in(value):
    assert nothing_else(json_decode_object(json_encode_exactly(value))) == nothing_else(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan, math.inf, -math.inf, (1, 2), (), {1}, frozenset(), b"bytes", bytearray(b"x"), datetime(2024, 1, 1, tzinfo=UTC),
        Decimal("1.5"), UUID(int=1), {1: "a"}, {1: "a", "1": "b"}, {1.5: 1}, {True: 1}, {None: 1}, {(1, 2): 3}, object(), len, "\ud800",
        {"\ud800": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_what_would_come_back_as_something_else_is_not_encoded_exactly(value):
    for outer in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(ValueError):
            json_encode_exactly(outer)


def test_a_cycle_and_a_bottomless_list_are_not_encoded_exactly():
    cycle, deep = [], []
    cycle.append(cycle)
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(ValueError):
            json_encode_exactly({"a": value})
