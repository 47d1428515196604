"""Headers of the caller's own, signed along with Jam's; and headers read before anything is verified."""

import base64
import json
import math

import jwt as pyjwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.jws import MAX_TOKEN_LENGTH, Signer, Verifier, read_header
from jam.crypto.keys import Key, KeySet
from jam.errors import InvalidValue, TokenInvalid

ALGORITHMS = ("HS256", "HS512", "ES256", "EdDSA")
MAX_HEADER = 2048
KEYS = {algorithm: KeySet(Key.generate(algorithm)) for algorithm in ALGORITHMS}
SIGNER, VERIFIER = Signer(KEYS["HS256"], "JWT"), Verifier(KEYS["HS256"], ("JWT",))
OWN = {"alg": "HS256", "typ": "JWT", "kid": KEYS["HS256"].current.kid}
PAYLOAD = b'{"sub":"alice"}'
REGISTERED = ("alg", "typ", "kid", "cty", "crit", "b64", "enc", "zip", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def ring():
    value = {}
    value["a"] = value
    return value


# -- signing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_headers_are_signed_along_and_the_token_verifies(algorithm):
    keys = KEYS[algorithm]
    token = Signer(keys, "JWT").sign(PAYLOAD, {"device": "phone", "n": [1, {"a": None}]})
    assert read_header(token) == {
        "alg": keys.current.algorithm, "typ": "JWT", "kid": keys.current.kid, "device": "phone", "n": [1, {"a": None}],
    }  # fmt: skip
    typ, payload, text = Verifier(keys, ("JWT",)).verify(token)
    assert (typ, payload, text) == ("JWT", {"sub": "alice"}, PAYLOAD)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc7515_5_2_a_changed_header_breaks_the_signature(algorithm):
    token = Signer(KEYS[algorithm], "JWT").sign(PAYLOAD, {"device": "phone"})
    changed = b64(json.dumps({**read_header(token), "device": "other"}).encode()) + token[token.index(".") :]
    assert read_header(changed)["device"] == "other"
    with pytest.raises(TokenInvalid):
        Verifier(KEYS[algorithm], ("JWT",)).verify(changed)


def test_another_implementation_reads_the_headers():
    token = SIGNER.sign(PAYLOAD, {"device": "Alice's ☎"})
    assert pyjwt.get_unverified_header(token) == {**OWN, "device": "Alice's ☎"}


@pytest.mark.parametrize("none", [None, {}])
def test_without_headers_a_token_is_as_it_always_was(none):
    assert SIGNER.sign(PAYLOAD, none) == SIGNER.sign(PAYLOAD)
    assert read_header(SIGNER.sign(PAYLOAD, none)) == OWN


def test_the_headers_of_one_token_are_not_those_of_the_next():
    SIGNER.sign(PAYLOAD, {"device": "phone"})
    assert read_header(SIGNER.sign(PAYLOAD, {"other": 1})) == {**OWN, "other": 1}
    assert read_header(SIGNER.sign(PAYLOAD)) == OWN


def test_the_same_headers_make_the_same_token():
    headers = {"b": 1, "a": {"z": 1, "y": 2}}
    assert SIGNER.sign(PAYLOAD, headers) == SIGNER.sign(PAYLOAD, json.loads(json.dumps(headers)))


@settings(max_examples=200, deadline=None, database=None)
@given(st.dictionaries(st.text(max_size=10).filter(lambda name: name not in REGISTERED), JSON, max_size=4))
def test_whatever_json_holds_comes_back(headers):
    token = SIGNER.sign(PAYLOAD, headers)
    assert read_header(token) == {**OWN, **headers}
    assert VERIFIER.verify(token)[1] == {"sub": "alice"}


@pytest.mark.parametrize("name", REGISTERED)
def test_rfc7515_4_1_a_registered_header_is_not_the_callers(name):
    for value in ("x", None, OWN.get(name, [])):
        with pytest.raises(InvalidValue) as caught:
            SIGNER.sign(PAYLOAD, {"fine": 1, name: value})
        assert repr(name) in str(caught.value)


def test_names_of_headers_are_told_apart_by_case():
    token = SIGNER.sign(PAYLOAD, {"ALG": "none", "Kid": 7})
    assert read_header(token) == {**OWN, "ALG": "none", "Kid": 7}
    assert VERIFIER.verify(token)[1] == {"sub": "alice"}


UNFIT = {
    "a list": [("a", 1)], "a text": "device", "a number": 7, "a set": {"device"}, "a key that is no text": {1: 2}, "no key": {None: 1},
    "bytes as a key": {b"a": 1}, "NaN": {"a": math.nan}, "infinity": {"a": math.inf}, "a lone surrogate": {"a": "\ud800"},
    "one in a key": {"\ud800": 1}, "bytes": {"a": b"x"}, "a tuple": {"a": (1,)}, "an object": {"a": object()},
    "one level too deep": nested(32), "far too deep": nested(100_000), "a ring": ring(), "too long": {"a": "x" * MAX_HEADER},
    "huge": {"a": "x" * 5_000_000}, "a mixture with a registered one": {1: 2, "alg": "none"},
}  # fmt: skip


@pytest.mark.parametrize("headers", UNFIT.values(), ids=UNFIT)
def test_headers_that_no_verifier_would_read_as_they_are_given_are_refused(headers):
    with pytest.raises(InvalidValue):
        SIGNER.sign(PAYLOAD, headers)


def test_the_longest_header_that_is_signed_is_the_longest_that_is_read():
    longest = None
    for size in range(MAX_HEADER):
        try:
            token = SIGNER.sign(PAYLOAD, {"a": "x" * size})
        except InvalidValue:
            break
        longest = token
    assert MAX_HEADER - 2 <= len(longest.partition(".")[0]) <= MAX_HEADER
    assert VERIFIER.verify(longest)[1] == {"sub": "alice"}
    assert set(read_header(longest)["a"]) == {"x"}


def test_the_deepest_header_that_is_signed_is_read():
    token = SIGNER.sign(PAYLOAD, nested(31))
    assert VERIFIER.verify(token)[1] == {"sub": "alice"}
    assert read_header(token) == {**OWN, **nested(31)}


def test_a_refusal_repeats_nothing_that_was_given():
    with pytest.raises(InvalidValue) as caught:
        SIGNER.sign(PAYLOAD, {"device": ("hunter2",)})
    assert "hunter2" not in str(caught.value) + repr(vars(caught.value))
    assert caught.value.__cause__ is None


# -- reading ------------------------------------------------------------------------------------------------


def test_a_header_is_read_without_any_key():
    token = SIGNER.sign(PAYLOAD)
    assert read_header(token) == OWN
    assert read_header(token[:-5]) == OWN
    assert read_header(b64(b'{"alg":"none"}') + ".e30.") == {"alg": "none"}


@pytest.mark.parametrize(
    "token",
    [
        None, 7, [], b"e30.e30.", "", ".", "..", "...", ".e30.", "x.e30.", "=.e30.", "e30=.e30.", " e30.e30.", "e31.e30.",
        "\ud800.e30.", "é.e30.", "e30\n.e30.", "\0.e30.",
        b64(b"[]") + ".e30.", b64(b"null") + ".e30.", b64(b"7") + ".e30.", b64(b'"alg"') + ".e30.", b64(b"{") + ".e30.",
        b64(b'{"a":1,"a":2}') + ".e30.", b64(b'{"a":NaN}') + ".e30.", b64(b'{"a":1}x') + ".e30.", b64(b'\xef\xbb\xbf{"a":1}') + ".e30.",
        b64(b'{"a":"\xff"}') + ".e30.", b64('{"a":1}'.encode("utf-16")) + ".e30.",
        b64(json.dumps(nested(32)).encode()) + ".e30.", b64(b'{"a":' * 300 + b"1" + b"}" * 300) + ".e30.", b64(b"[" * 1000) + ".e30.",
        b64(json.dumps({"a": "x" * MAX_HEADER}).encode()) + ".e30.", "e30." + "x" * MAX_TOKEN_LENGTH, "x" * 10_000_000,
    ],
    ids=lambda token: ascii(token)[:30],
)  # fmt: skip
def test_what_has_no_header_is_no_token(token):
    with pytest.raises(TokenInvalid) as caught:
        read_header(token)
    assert type(caught.value) is TokenInvalid
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_header_of_a_token_of_the_greatest_length_is_read():
    token = "e30." + "x" * (MAX_TOKEN_LENGTH - 4)
    assert read_header(token) == {}


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: b64(data) + ".e30."))
def test_no_text_makes_the_reader_fail_otherwise(text):
    try:
        assert isinstance(read_header(text), dict)
    except TokenInvalid:
        pass


@settings(max_examples=100, deadline=None, database=None)
@given(st.dictionaries(st.text(max_size=10), JSON, max_size=4))
def test_any_object_that_fits_is_a_header(header):
    assert read_header(b64(json.dumps(header).encode()) + ".e30.") == header
