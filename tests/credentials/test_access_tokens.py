"""Access tokens: issued, verified, and ended before their time.

Hostile tokens are signed with the real key: only the rule under test can refuse them.
"""

import base64
import json
import secrets
import sys
import threading
import time
import traceback

import jwt as pyjwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.crypto.keys import Key, KeySet
from jam.errors import (
    ConfigError,
    CredentialError,
    InvalidKey,
    InvalidValue,
    JamError,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenNotYetValid,
    TokenRevoked,
)
from jam.events import Revoked, SubjectRevoked, TokenIssued
from jam.identity import ANONYMOUS
from jam.stores.base import COLLECT_AFTER
from jam.testing import MovableClock

MISSING = object()
LIFETIME = 900
MAX_LIFETIME = 86400
NOT_NUMBERS = ["", "1", "1800000100", True, False, None, [], [1800000100], {}, {"a": 1}]
HUGE = 10**400


@pytest.fixture
def tokens(jam):
    return jam.access_tokens


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(jam, payload, **header):
    """A token with this payload (an object, or bytes as they are), truly signed."""
    key = jam.keys.current
    header = {"alg": key.algorithm, "typ": "at+jwt", "kid": key.kid, **header}
    header = {name: value for name, value in header.items() if value is not MISSING}
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signing_input = f"{b64(json.dumps(header).encode())}.{b64(text)}"
    return f"{signing_input}.{b64(key.sign(signing_input.encode()))}"


def claims(jam, **changes):
    """What RFC 9068 requires, with changes; MISSING leaves a claim out."""
    now = int(jam.clock())
    full = {
        "iss": "jam", "aud": "jam", "sub": "alice", "client_id": "jam", "iat": now, "exp": now + 600, "jti": secrets.token_hex(8), **changes,
    }  # fmt: skip
    return {name: value for name, value in full.items() if value is not MISSING}


def refusal(jam, token, kind=TokenInvalid):
    with pytest.raises(TokenInvalid) as caught:
        jam.access_tokens.verify(token)
    assert type(caught.value) is kind
    return caught.value


def refuse(jam, kind=TokenInvalid, /, *, typ="at+jwt", **changes):
    return refusal(jam, signed(jam, claims(jam, **changes), typ=typ), kind)


def accept(jam, *, typ="at+jwt", **changes):
    return jam.access_tokens.verify(signed(jam, claims(jam, **changes), typ=typ))


# -- issuing ------------------------------------------------------------------------------------------------


def test_an_issued_token_proves_its_subject(tokens, clock):
    identity = tokens.verify(tokens.issue("alice"))
    assert (identity.subject, identity.method, identity.is_authenticated) == ("alice", "jwt", True)
    assert (identity.roles, identity.scopes, identity.amr, identity.authenticated_at) == (set(), set(), (), None)
    assert (identity.client_id, identity.expires_at, identity.generation) == ("jam", clock.now + LIFETIME, 0)
    assert identity.credential_id == identity.payload["jti"]


def test_rfc9068_2_2_an_issued_token_has_what_the_profile_requires(tokens, clock):
    token = tokens.issue("alice")
    assert pyjwt.get_unverified_header(token)["typ"] == "at+jwt"
    payload = tokens.verify(token).payload
    jti = payload.pop("jti")
    assert payload == {
        "iss": "jam", "aud": "jam", "sub": "alice", "client_id": "jam", "iat": clock.now, "exp": clock.now + LIFETIME,
    }  # fmt: skip
    assert len(base64.urlsafe_b64decode(jti)) == 18


def test_an_issued_token_carries_what_it_was_given(tokens, clock):
    token = tokens.issue(
        "alice", scopes=["posts:read", "posts:write"], roles=["admin", "editor"], lifetime=60, authenticated_at=clock.now - 5.7,
        amr=["pwd", "otp"], not_before=clock.now, claims={"tenant": "a", "nested": {"list": [1, None, "x"]}},
    )  # fmt: skip
    identity = tokens.verify(token)
    assert identity.scopes == {"posts:read", "posts:write"}
    assert identity.roles == {"admin", "editor"}
    assert identity.amr == ("pwd", "otp")
    assert identity.authenticated_at == clock.now - 6
    assert identity.expires_at == clock.now + 60
    payload = identity.payload
    assert (payload["scope"], payload["roles"], payload["amr"]) == (
        "posts:read posts:write",
        ["admin", "editor"],
        ["pwd", "otp"],
    )
    assert (payload["tenant"], payload["nested"], payload["nbf"]) == ("a", {"list": [1, None, "x"]}, clock.now)


def test_asvs_11_5_1_every_token_has_its_own_unguessable_id(tokens):
    ids = {tokens.verify(tokens.issue("alice")).credential_id for _ in range(300)}
    assert len(ids) == 300
    bits = [int.from_bytes(base64.urlsafe_b64decode(name)[2:], "big") for name in ids]
    ones = zeros = 0
    for number in bits:
        ones, zeros = ones | number, zeros | ~number
    assert (ones & zeros & (2**128 - 1)).bit_count() == 128


def test_the_payload_handed_out_cannot_change_the_identity(tokens):
    identity = tokens.verify(tokens.issue("alice", claims={"list": [1]}))
    identity.payload["sub"] = "mallory"
    identity.payload["list"].append(2)
    assert (identity.payload["sub"], identity.payload["list"]) == ("alice", [1])
    with pytest.raises(AttributeError):
        identity.subject = "mallory"


def test_another_implementation_reads_an_issued_token():
    key = Key.generate("ES256")
    token = Jam({"name": "shop"}, keys=KeySet(key)).access_tokens.issue("alice", scopes=["a"])
    payload = pyjwt.decode(
        token,
        key.to_pem(),
        algorithms=["ES256"],
        audience="shop",
        issuer="shop",
        options={"require": ["exp", "iat", "jti", "sub"]},
    )
    assert (payload["sub"], payload["scope"]) == ("alice", "a")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "ES256", "ES384", "ES512", "EdDSA"])
def test_a_token_is_signed_with_the_current_key_whatever_its_algorithm(algorithm, clock):
    jam = Jam({}, keys=KeySet(Key.generate(algorithm)), clock=clock)
    token = jam.access_tokens.issue("alice")
    assert pyjwt.get_unverified_header(token) == {"alg": algorithm, "typ": "at+jwt", "kid": jam.keys.current.kid}
    assert jam.access_tokens.verify(token).subject == "alice"


SUBJECTS = ["alice", "Alice", "álice", " alice ", "a", "x" * 255, "💥", "a\nb", "{}", '"', "0", "..", "é" * 255]


@pytest.mark.parametrize("subject", SUBJECTS, ids=ascii)
def test_a_subject_comes_back_exactly_as_it_was(tokens, subject):
    assert tokens.verify(tokens.issue(subject)).subject == subject


@pytest.mark.parametrize(
    "subject",
    ["", "x" * 256, "a\0b", "\0", "\ud800", None, 1, 0, True, b"alice", ["alice"], {"a": 1}, object()],
    ids=ascii,
)
def test_asvs_15_3_5_a_subject_that_is_no_proper_text_is_refused(tokens, subject):
    with pytest.raises(InvalidValue):
        tokens.issue(subject)
    with pytest.raises(InvalidValue):
        tokens.sign({"sub": subject})


@pytest.mark.parametrize("lifetime", [1, 1.9, 60, 900.5, MAX_LIFETIME])
def test_a_lifetime_is_whole_seconds_up_to_the_longest_allowed(tokens, clock, lifetime):
    assert tokens.verify(tokens.issue("alice", lifetime=lifetime)).expires_at == clock.now + int(lifetime)


@pytest.mark.parametrize(
    "lifetime",
    [0, 0.9, -1, -900, MAX_LIFETIME + 1, 1e15, 1e300, HUGE, float("inf"), float("-inf"), float("nan"), "60", True, False, [60], b"60", {}],
    ids=lambda value: repr(value)[:10],
)  # fmt: skip
def test_a_lifetime_that_makes_no_sense_is_refused(tokens, jam, lifetime):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", lifetime=lifetime)
    with pytest.raises(InvalidValue):
        tokens.payload(lifetime)
    with pytest.raises(InvalidValue):
        jam.make_payload(lifetime)


@pytest.mark.parametrize("argument", ["not_before", "authenticated_at"])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), HUGE, -HUGE, "1", True, [1], {}, b"1"], ids=lambda value: repr(value)[:10]
)
def test_a_time_that_makes_no_sense_is_refused(tokens, argument, value):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", **{argument: value})


@pytest.mark.parametrize("argument", ["scopes", "roles", "amr"])
@pytest.mark.parametrize(
    "value",
    ["admin", b"admin", [1], [None], [""], ["a", ""], [b"a"], [["a"]], ["\ud800"], 5, {"a": 1}.items()],
    ids=repr,
)
def test_names_that_are_no_collection_of_texts_are_refused(tokens, argument, value):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", **{argument: value})


@pytest.mark.parametrize("argument", ["scopes", "roles", "amr"])
@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys, iter], ids=lambda kind: kind.__name__)
def test_names_may_come_in_any_collection(tokens, argument, kind):
    identity = tokens.verify(tokens.issue("alice", **{argument: kind(["a"])}))
    assert list(getattr(identity, argument)) == ["a"]


@pytest.mark.parametrize("scope", ["a b", " ", "a ", " a", "a\tb", "a\nb", 'a"b', "a\\b", "é", "a\x7f"], ids=ascii)
def test_rfc6749_3_3_a_scope_that_cannot_be_written_in_a_challenge_is_refused(tokens, scope):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", scopes=[scope])


def test_asvs_10_3_2_scopes_are_separate_exact_words(tokens):
    identity = tokens.verify(tokens.issue("alice", scopes=["readall", "Write"]))
    assert identity.scopes == {"readall", "Write"}
    assert "read" not in identity.scopes


OWN = ["iss", "aud", "sub", "client_id", "iat", "nbf", "exp", "jti", "jam_gen", "scope", "roles", "auth_time", "amr"]


@pytest.mark.parametrize("name", OWN)
def test_claims_jam_sets_itself_cannot_be_overridden(tokens, name):
    with pytest.raises(InvalidValue, match=name):
        tokens.issue("alice", claims={"tenant": "a", name: "x"})


def test_a_claim_given_by_an_escape_is_no_way_around(tokens):
    assert tokens.verify(tokens.issue("alice", claims={"su\\u0062": "mallory"})).subject == "alice"


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1},
        b"bytes",
        float("nan"),
        float("inf"),
        "\ud800",
        {1: "a"},
        {1: "a", "1": "b"},
        {(1, 2): 3},
        (1, 2),
        print,
        time.struct_time,
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_claims_json_cannot_hold_are_refused(tokens, value):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", claims={"a": value})
    with pytest.raises(InvalidValue):
        tokens.sign({"a": value})


@pytest.mark.parametrize("claims", [[("a", 1)], "a", 5, {1: 2}, {None: 1}, {b"a": 1}, {"\ud800": 1}], ids=ascii)
def test_claims_that_are_no_mapping_of_names_are_refused(tokens, claims):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", claims=claims)
    with pytest.raises(InvalidValue):
        tokens.sign(claims)


def bottomless():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def cycle():
    ring = []
    ring.append(ring)
    return ring


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "make", [cycle, bottomless, lambda: nested(40), lambda: "x" * 20_000], ids=["cycle", "bottomless", "deep", "long"]
)
def test_claims_that_could_never_be_accepted_back_are_refused(tokens, make):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", claims={"a": make()})
    with pytest.raises(InvalidValue):
        tokens.sign({"a": make()})


@pytest.mark.parametrize("generation", ["1", -1, True, 1.5, [1]], ids=repr)
def test_a_generation_that_is_no_whole_number_is_refused(tokens, generation):
    with pytest.raises(InvalidValue):
        tokens.issue("alice", generation=generation)


def test_public_keys_alone_issue_nothing(clock):
    jam = Jam({}, keys=KeySet(Key.generate("ES256").public_key()), clock=clock)
    for make in (lambda: jam.access_tokens.issue("alice"), lambda: jam.access_tokens.sign({"a": 1})):
        with pytest.raises(ConfigError) as caught:
            make()
        assert "private_key" in caught.value.hint


def test_asvs_16_3_1_issuing_is_an_event_that_holds_no_token(tokens, events, clock):
    token = tokens.issue("alice")
    [event] = events
    assert event == TokenIssued(at=clock.now, subject="alice", token_id=tokens.verify(token).credential_id)
    assert token not in repr(event)
    assert token.rpartition(".")[2] not in repr(event)


# -- plain tokens -------------------------------------------------------------------------------------------


def test_a_plain_token_gets_what_its_payload_lacks(tokens, clock):
    token = tokens.sign({"user": 5})
    assert pyjwt.get_unverified_header(token)["typ"] == "JWT"
    payload = tokens.verify(token).payload
    assert len(base64.urlsafe_b64decode(payload.pop("jti"))) == 18
    assert payload == {"user": 5, "iat": clock.now, "exp": clock.now + LIFETIME, "iss": "jam", "aud": "jam"}


def test_a_plain_token_keeps_what_its_payload_has(tokens, clock):
    given_claims = {
        "iat": clock.now - 10, "exp": clock.now + 10.5, "jti": "my-id", "iss": "jam", "aud": ["other", "jam"], "sub": "bob",
        "roles": ["admin"], "scope": "a b", "amr": ["pwd"], "auth_time": clock.now - 20, "nbf": clock.now, "client_id": "cli",
    }  # fmt: skip
    identity = tokens.verify(tokens.sign(given_claims))
    assert identity.payload == given_claims
    assert (identity.subject, identity.roles, identity.scopes, identity.amr) == ("bob", {"admin"}, {"a", "b"}, ("pwd",))
    assert (identity.credential_id, identity.client_id, identity.authenticated_at) == ("my-id", "cli", clock.now - 20)
    assert identity.expires_at == clock.now + 10.5


def test_a_plain_token_without_subject_proves_nobody(tokens):
    identity = tokens.verify(tokens.sign({"a": 1}))
    assert identity.subject is None
    assert not identity.is_authenticated
    assert identity.payload["a"] == 1


def test_signing_leaves_the_callers_payload_alone(tokens):
    payload = {"a": 1}
    tokens.sign(payload)
    assert payload == {"a": 1}


def test_a_payload_is_filled_in_for_signing(tokens, jam, clock):
    payload = tokens.payload(60, user=5, sub="alice")
    assert (payload["iat"], payload["exp"], payload["user"]) == (clock.now, clock.now + 60, 5)
    assert tokens.verify(tokens.sign(payload)).credential_id == payload["jti"]
    assert tokens.payload()["exp"] == clock.now + LIFETIME
    assert tokens.payload(jti="mine", exp=5)["jti"] == "mine"
    assert tokens.payload(exp=5)["exp"] == 5
    assert jam.make_payload(60, user=5)["exp"] == clock.now + 60


def test_the_short_ways_of_jam_do_the_same(jam, clock):
    token = jam.gen_jwt_token(jam.make_payload(60, user=5))
    payload = jam.verify_jwt_token(token)
    assert (payload["user"], payload["exp"]) == (5, clock.now + 60)
    clock.move(60)
    with pytest.raises(TokenExpired):
        jam.verify_jwt_token(token)


def test_the_generation_of_a_plain_token_is_the_subjects(tokens):
    tokens.revoke_all("alice")
    assert tokens.verify(tokens.sign({"sub": "alice"})).generation == 1
    identity = tokens.verify(tokens.sign({"sub": "bob"}))
    assert identity.generation == 0
    assert "jam_gen" not in identity.payload


@pytest.mark.parametrize("generation", [0, 1, 5, None, "1"])
def test_the_generation_of_a_plain_token_cannot_be_set(tokens, generation):
    with pytest.raises(InvalidValue, match="jam_gen"):
        tokens.sign({"sub": "alice", "jam_gen": generation})


def test_a_claim_named_gen_belongs_to_the_app(tokens):
    tokens.revoke_all("alice")
    identity = tokens.verify(tokens.sign({"sub": "alice", "gen": "third"}))
    assert (identity.payload["gen"], identity.generation) == ("third", 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("exp", value) for value in NOT_NUMBERS), *(("iat", value) for value in NOT_NUMBERS), *(("nbf", value) for value in NOT_NUMBERS),
        ("exp", float("nan")), ("exp", float("inf")), ("exp", HUGE), ("exp", -HUGE), ("iat", float("nan")), ("iat", -HUGE), ("nbf", float("nan")),
        ("nbf", HUGE), ("jti", ""), ("jti", None), ("jti", 1), ("iss", None), ("iss", 1), ("aud", None), ("aud", []), ("aud", [1]), ("aud", {}),
        ("roles", "admin"), ("roles", [1]), ("amr", "pwd"), ("scope", ["a"]), ("auth_time", "x"), ("client_id", 5),
    ],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_a_payload_that_could_never_be_accepted_back_is_not_signed(tokens, name, value):
    with pytest.raises(InvalidValue):
        tokens.sign({name: value})


def test_neither_is_one_whose_times_together_are_beyond_numbers(tokens):
    for payload in (
        {"iat": float("inf"), "exp": float("inf")}, {"iat": HUGE, "exp": HUGE + 5}, {"iat": 1.5, "exp": HUGE}, {"iat": -HUGE, "exp": 1.5},
        {"iat": float("-inf"), "exp": float("-inf")},
    ):  # fmt: skip
        with pytest.raises(InvalidValue):
            tokens.sign(payload)


def test_a_payload_that_would_live_too_long_is_not_signed(tokens, clock):
    assert tokens.sign({"exp": clock.now + MAX_LIFETIME})
    with pytest.raises(InvalidValue, match="max_lifetime"):
        tokens.sign({"exp": clock.now + MAX_LIFETIME + 1})
    with pytest.raises(InvalidValue, match="max_lifetime"):
        tokens.sign({"exp": clock.now + 100, "iat": clock.now - MAX_LIFETIME})


@pytest.mark.parametrize("payload", [None, 1, "a", [], [("a", 1)], b"{}", {1: 2}, {"a": 1, None: 2}], ids=repr)
def test_what_is_no_payload_is_not_signed(tokens, jam, payload):
    with pytest.raises(InvalidValue):
        tokens.sign(payload)
    with pytest.raises(InvalidValue):
        jam.gen_jwt_token(payload)


# -- time ---------------------------------------------------------------------------------------------------


def test_asvs_9_2_1_a_token_expires_exactly_at_exp(tokens, clock):
    token = tokens.issue("alice", lifetime=60)
    clock.move(59.999)
    assert tokens.verify(token).subject == "alice"
    clock.move(0.001)
    with pytest.raises(TokenExpired):
        tokens.verify(token)
    clock.move(10**9)
    with pytest.raises(TokenExpired):
        tokens.verify(token)


def test_asvs_9_2_1_a_token_begins_exactly_at_nbf(tokens, clock):
    token = tokens.issue("alice", not_before=clock.now + 60)
    with pytest.raises(TokenNotYetValid):
        tokens.verify(token)
    clock.move(59.999)
    with pytest.raises(TokenNotYetValid):
        tokens.verify(token)
    clock.move(0.001)
    assert tokens.verify(token).subject == "alice"


def test_asvs_9_2_1_a_token_from_the_future_is_not_valid_yet(jam, clock):
    refuse(jam, TokenNotYetValid, iat=int(clock.now) + 1, exp=int(clock.now) + 60)
    assert accept(jam, iat=int(clock.now), exp=int(clock.now) + 60).subject == "alice"


def test_asvs_9_2_1_nbf_in_the_past_does_not_make_a_token_from_the_future_valid(jam, clock):
    refuse(jam, TokenNotYetValid, iat=int(clock.now) + 5, nbf=int(clock.now) - 5)


def test_asvs_9_2_1_fractions_of_a_second_count(jam, clock):
    assert accept(jam, exp=clock.now + 0.5).expires_at == clock.now + 0.5
    refuse(jam, TokenExpired, exp=clock.now - 0.5)
    refuse(jam, TokenNotYetValid, nbf=clock.now + 0.5)


def test_asvs_9_2_1_leeway_helps_on_both_sides_and_not_a_moment_longer(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"leeway": 30}}, clock=clock)
    now = int(clock.now)
    assert accept(jam, iat=now - 100, exp=now - 29).subject == "alice"
    refuse(jam, TokenExpired, iat=now - 100, exp=now - 30)
    assert accept(jam, nbf=now + 30).subject == "alice"
    refuse(jam, TokenNotYetValid, nbf=now + 31)
    assert accept(jam, iat=now + 30).subject == "alice"
    refuse(jam, TokenNotYetValid, iat=now + 31)


def test_asvs_9_2_1_there_is_no_leeway_unless_it_is_set(jam, clock):
    refuse(jam, TokenExpired, exp=int(clock.now))
    refuse(jam, TokenNotYetValid, nbf=int(clock.now) + 1)


@pytest.mark.parametrize(
    "leeway", [300.1, 301, 86400, 1e300, -1, -0.1, float("nan"), float("inf"), "30", True, [30]], ids=repr
)
def test_asvs_9_2_1_leeway_is_capped(leeway):
    with pytest.raises(ConfigError, match="leeway"):
        Jam({"access_tokens": {"leeway": leeway}})


def test_asvs_9_2_1_the_longest_leeway_is_five_minutes(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"leeway": 300}}, clock=clock)
    token = jam.access_tokens.issue("alice", lifetime=60)
    clock.move(359)
    assert jam.access_tokens.verify(token).subject == "alice"
    clock.move(1)
    refusal(jam, token, TokenExpired)


def test_a_token_that_lives_longer_than_the_longest_allowed_is_refused(jam, clock):
    now = int(clock.now)
    assert accept(jam, exp=now + MAX_LIFETIME).subject == "alice"
    refuse(jam, exp=now + MAX_LIFETIME + 1)
    refuse(jam, iat=now - MAX_LIFETIME, exp=now + 1)
    refuse(jam, iat=0, exp=now + 1)
    refuse(jam, exp=1e300)
    refuse(jam, iat=-1e308, exp=1e308)


def test_what_the_longest_allowed_is_can_be_set(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"max_lifetime": 1000, "lifetime": 1000}}, clock=clock)
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).expires_at == clock.now + 1000
    with pytest.raises(InvalidValue):
        jam.access_tokens.issue("alice", lifetime=1001)
    refuse(jam, exp=int(clock.now) + 1001)


def test_a_clock_that_is_set_back_does_not_revive_anything_wrongly(tokens, clock):
    token = tokens.issue("alice", lifetime=60)
    clock.move(60)
    with pytest.raises(TokenExpired):
        tokens.verify(token)
    clock.move(-1)
    assert tokens.verify(token).subject == "alice"
    clock.move(-60)
    with pytest.raises(TokenNotYetValid):
        tokens.verify(token)


# -- claims of the wrong kind -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_rfc7519_4_1_4_a_time_that_is_no_number_is_refused(jam, name, value):
    refuse(jam, **{name: value})
    refuse(jam, typ="JWT", **{name: value})


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time", "jam_gen"])
@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 5000, "0x10", "01"], ids=lambda text: text[:10]
)
def test_rfc7519_4_1_4_a_number_beyond_numbers_is_refused(jam, name, number):
    text = json.dumps(claims(jam, **{name: MISSING}))[:-1] + f',"{name}":{number}}}'
    refusal(jam, signed(jam, text.encode()))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": HUGE}, {"exp": -HUGE}, {"iat": HUGE}, {"iat": -HUGE}, {"nbf": HUGE}, {"iat": HUGE, "exp": HUGE + 5}, {"iat": -HUGE - 5, "exp": -HUGE},
        {"exp": HUGE, "iat": 1.5}, {"exp": 1.5, "iat": -HUGE}, {"exp": HUGE, "nbf": 1.5}, {"exp": 10**309, "iat": 10**309 - 5},
    ],
    ids=lambda changes: "-".join(changes),
)  # fmt: skip
def test_rfc7519_4_1_4_a_time_of_hundreds_of_digits_is_refused_and_breaks_nothing(jam, changes):
    for typ in ("at+jwt", "JWT"):
        token = signed(jam, claims(jam, **changes), typ=typ)
        for use in (jam.access_tokens.verify, jam.access_tokens.revoke):
            try:
                use(token)
            except TokenInvalid:
                continue
            assert use == jam.access_tokens.revoke
        with pytest.raises(TokenInvalid):
            jam.access_tokens.verify(token)


@pytest.mark.parametrize("name", ["exp", "iat", "jti", "iss", "aud"])
@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
def test_rfc7519_4_1_a_token_without_a_claim_that_every_token_needs_is_refused(jam, name, typ):
    refuse(jam, typ=typ, **{name: MISSING})
    refuse(jam, typ=typ, **{name: None})


@pytest.mark.parametrize("name", ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"])
def test_rfc9068_4_a_token_that_lacks_a_required_claim_is_refused(jam, name):
    assert accept(jam).subject == "alice"
    refuse(jam, **{name: MISSING})


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "client_id", "jti"])
def test_rfc9068_4_an_empty_claim_is_as_good_as_none(jam, name):
    refuse(jam, **{name: ""})


def test_a_plain_token_needs_neither_subject_nor_client(jam):
    identity = accept(jam, typ="JWT", sub=MISSING, client_id=MISSING)
    assert (identity.subject, identity.client_id) == (None, None)


@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
@pytest.mark.parametrize(
    "sub",
    ["", None, 0, 1, 5, True, False, 1.5, [], ["alice"], {}, {"a": "alice"}, "x" * 256, "a\0b", "alice\0"],
    ids=lambda sub: ascii(sub)[:12],
)
def test_rfc8725_3_8_a_sub_that_is_no_proper_text_is_refused(jam, typ, sub):
    refuse(jam, typ=typ, sub=sub)


@pytest.mark.parametrize("sub", SUBJECTS, ids=ascii)
def test_rfc8725_3_8_a_sub_is_read_exactly(jam, sub):
    assert accept(jam, sub=sub).subject == sub


@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
@pytest.mark.parametrize(
    "aud",
    [
        "", "ja", "jam2", "jamm", "JAM", "Jam", " jam", "jam ", "jam\0", "jam/", "https://jam", "other", "*", "jam other", "jam,other", None, 0, 1, True,
        [], [""], ["other"], ["ja", "jam2"], ["JAM"], ["jam", 1], ["jam", None], [["jam"]], {}, {"jam": 1}, {"aud": "jam"},
    ],
    ids=ascii,
)  # fmt: skip
def test_asvs_9_2_3_asvs_10_3_1_rfc8725_3_9_a_token_for_another_audience_is_refused(jam, typ, aud):
    refuse(jam, typ=typ, aud=aud)


@pytest.mark.parametrize("aud", ["jam", ["jam"], ["other", "jam"], ["jam", "jam"], ["jam", ""]], ids=repr)
def test_asvs_9_2_3_a_token_for_this_audience_among_others_passes(jam, aud):
    assert accept(jam, aud=aud).subject == "alice"


def test_asvs_9_2_4_every_token_names_its_audience(tokens):
    for token in (tokens.issue("alice"), tokens.sign({}), tokens.sign(tokens.payload())):
        assert tokens.verify(token).payload["aud"] == "jam"


def test_asvs_9_2_4_two_apps_of_one_secret_refuse_each_others_tokens(secret, clock):
    shop, blog = (Jam({"secret": secret, "name": name}, clock=clock) for name in ("shop", "blog"))
    for ours, theirs in ((shop, blog), (blog, shop)):
        for token in (ours.access_tokens.issue("alice"), ours.access_tokens.sign({"sub": "alice"})):
            assert ours.access_tokens.verify(token).subject == "alice"
            refusal(theirs, token)


def test_asvs_8_4_1_nor_is_a_token_of_another_tenant_revoked(secret, clock):
    shop, blog = (Jam({"secret": secret, "name": name}, clock=clock) for name in ("shop", "blog"))
    with pytest.raises(TokenInvalid):
        shop.access_tokens.revoke(blog.access_tokens.issue("alice"))


@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
@pytest.mark.parametrize(
    "iss",
    [
        "",
        "jam/",
        "JAM",
        " jam",
        "jam ",
        "ja",
        "jam2",
        "https://jam",
        "jam\0",
        "other",
        None,
        0,
        1,
        True,
        [],
        ["jam"],
        {},
    ],
    ids=ascii,
)
def test_rfc9068_4_a_token_of_another_issuer_is_refused(jam, typ, iss):
    refuse(jam, typ=typ, iss=iss)


def test_rfc9068_4_an_issuer_is_compared_exactly(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"issuer": "https://id.example/", "audience": "api"}}, clock=clock)
    assert accept(jam, iss="https://id.example/", aud="api").payload["iss"] == "https://id.example/"
    for iss in (
        "https://id.example",
        "https://id.example//",
        "HTTPS://id.example/",
        "http://id.example/",
        "https://id.example/?",
        "jam",
    ):
        refuse(jam, iss=iss, aud="api")


def test_issuer_audience_and_client_have_settings_of_their_own(secret, clock):
    options = {"issuer": "https://id.example", "audience": "https://api.example", "client_id": "spa"}
    jam = Jam({"secret": secret, "name": "shop", "access_tokens": options}, clock=clock)
    payload = jam.access_tokens.verify(jam.access_tokens.issue("alice")).payload
    assert (payload["iss"], payload["aud"], payload["client_id"]) == tuple(options.values())


@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
@pytest.mark.parametrize("jti", ["", None, 0, 1, True, [], ["x"], {}], ids=repr)
def test_rfc7519_4_1_7_a_jti_that_is_no_text_is_refused(jam, typ, jti):
    refuse(jam, typ=typ, jti=jti)


@pytest.mark.parametrize(
    "jti", ["x", "A" * 24, "A" * 5000, "\0", "é", "../..", "'; --", " "], ids=lambda jti: ascii(jti)[:10]
)
def test_a_token_with_any_other_jti_can_be_revoked(jam, jti):
    token = signed(jam, claims(jam, jti=jti))
    assert jam.access_tokens.verify(token).credential_id == jti
    jam.access_tokens.revoke(token)
    refusal(jam, token, TokenRevoked)
    assert accept(jam).subject == "alice"


WRONG = {
    "client_id": [0, 1, True, False, 1.5, [], ["jam"], {}, None],
    "roles": ["admin", "", 0, 1, True, False, 1.5, {}, {"admin": 1}, [1], [None], ["a", 1], [["a"]], [True], None],
    "amr": ["pwd", "", 0, 1, True, False, 1.5, {}, {"pwd": 1}, [1], [None], [["a"]], None],
    "scope": [["a"], [], 0, 1, True, False, {}, {"a": 1}, 1.5, None],
    "auth_time": ["", "1", "x", True, False, [], [1], {}, None],
    "jam_gen": ["", "0", "1", True, False, 1.5, 0.0, -1, [], [1], {}, None],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{value!r}") for name, values in WRONG.items() for value in values],
)
@pytest.mark.parametrize("typ", ["at+jwt", "JWT"])
def test_asvs_15_3_5_a_claim_of_the_wrong_type_is_refused(jam, typ, name, value):
    refuse(jam, typ=typ, **{name: value})


def test_an_empty_list_of_roles_or_methods_is_none_of_them(jam):
    identity = accept(jam, roles=[], amr=[], scope="")
    assert (identity.roles, identity.amr, identity.scopes) == (set(), (), set())


def test_rfc7515_4_duplicate_claims_are_refused(jam):
    text = json.dumps(claims(jam))
    for extra in (
        ',"sub":"mallory"}',
        ',"sub":"alice"}',
        ',"x":{"a":1,"a":2}}',
        ',"\\u0073ub":"mallory"}',
        ',"exp":99999999999}',
    ):
        refusal(jam, signed(jam, (text[:-1] + extra).encode()))


def test_claims_jam_does_not_know_are_left_alone(jam):
    extra = {"email": "a@b", "groups": [1, {"a": None}], "events": "x", "nonce": True}
    payload = accept(jam, **extra).payload
    assert {name: payload[name] for name in extra} == extra


# -- type and form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+JWT", "JWT", "jwt", "application/jwt"]
)
def test_rfc9068_4_the_type_is_an_access_tokens_or_a_plain_ones(jam, typ):
    assert accept(jam, typ=typ).subject == "alice"


@pytest.mark.parametrize(
    "typ",
    [
        MISSING, "", None, 1, [], ["at+jwt"], "at", "+jwt", "at-jwt", "at+jwt ", "at+jwt\0", "xat+jwt", "JWS", "JOSE", "refresh+jwt", "rt+jwt", "id+jwt",
        "reset+jwt", "verify+jwt", "mfa+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", "token-introspection+jwt", "text/at+jwt", "application/",
    ],
    ids=lambda typ: "missing" if typ is MISSING else ascii(typ),
)  # fmt: skip
def test_asvs_9_2_2_rfc8725_3_12_a_token_made_for_another_purpose_is_refused(jam, typ):
    refuse(jam, typ=typ)


def test_rfc9068_4_what_a_plain_token_may_lack_an_access_token_may_not(jam):
    for missing in ({"sub": MISSING}, {"client_id": MISSING}):
        assert accept(jam, typ="JWT", **missing).payload["aud"] == "jam"
        refuse(jam, typ="at+jwt", **missing)
        refuse(jam, typ="application/AT+jwt", **missing)


@pytest.mark.parametrize(
    "token",
    [
        None, b"", 0, 1, 1.5, True, [], ["a.b.c"], {}, (), object(), "", " ", ".", "..", "a.b.c", "null", "\ud800", "\ud800.\ud800.\ud800", "é.é.é", "\0",
        "a" * 1_000_000, "." * 1_000_000, "{" * 1_000_000,
    ],
    ids=lambda token: ascii(token)[:10],
)  # fmt: skip
def test_what_is_no_token_is_refused_at_once(jam, token):
    started = time.perf_counter()
    refusal(jam, token)
    with pytest.raises(TokenInvalid):
        jam.access_tokens.revoke(token)
    assert time.perf_counter() - started < 1


def test_the_bytes_of_a_good_token_are_no_token(tokens):
    token = tokens.issue("alice")
    for thing in (token.encode(), [token], {"token": token}, bytearray(token.encode())):
        with pytest.raises(TokenInvalid):
            tokens.verify(thing)
    assert tokens.verify(token).subject == "alice"


def test_text_of_a_subclass_is_text(tokens):
    class Markup(str):
        __slots__ = ()

    assert tokens.verify(Markup(tokens.issue("alice"))).subject == "alice"


def test_asvs_9_1_1_no_single_changed_character_leaves_a_token_good(tokens):
    token = tokens.issue("alice")
    tokens.verify(token)  # so that the good one is remembered
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position, old in enumerate(token):
        for new in (alphabet[(alphabet.find(old) + 1) % 64], alphabet[alphabet.find(old) ^ 1], ".", "=", " "):
            if new != old:
                with pytest.raises(TokenInvalid):
                    tokens.verify(token[:position] + new + token[position + 1 :])
    for position in range(len(token)):
        with pytest.raises(TokenInvalid):
            tokens.verify(token[:position])
    assert tokens.verify(token).subject == "alice"


def test_asvs_9_1_1_what_stands_in_a_forged_token_is_not_told(jam, clock):
    attacker = Jam({"secret": secrets.token_urlsafe(64)}, clock=clock)
    kid = jam.keys.current.kid
    for payload in (
        claims(jam), claims(jam, exp=1), claims(jam, nbf=2**40), claims(jam, aud="other"), claims(jam, sub=MISSING), claims(jam, exp="x"), {}, b"no json",
    ):  # fmt: skip
        for header in ({"kid": kid}, {}, {"kid": MISSING}, {"alg": "none"}, {"typ": "JWT", "kid": kid}):
            error = refusal(jam, signed(attacker, payload, **header))
            assert error.hint == ""


def test_rfc8725_3_8_a_key_of_another_issuer_signs_nothing_of_ours(secret, clock):
    ours, theirs = Key.generate("ES256"), Key.generate("ES256")
    jam = Jam({"secret": secret}, keys=KeySet(ours), clock=clock)
    same_kid = Key.from_jwk({**theirs.to_jwk(private=True), "kid": ours.kid})
    for key in (theirs, same_kid):
        other = Jam({}, keys=KeySet(key), clock=clock)
        refusal(jam, signed(other, claims(jam)))


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "iss",
                "aud",
                "sub",
                "client_id",
                "iat",
                "exp",
                "nbf",
                "jti",
                "jam_gen",
                "roles",
                "scope",
                "amr",
                "auth_time",
                "x",
            ]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(st.characters(), max_size=8)
            | st.sampled_from(["jam", ["jam"], [], HUGE, -HUGE]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        ),
        max_size=5,
    ),
    st.sampled_from(["at+jwt", "JWT"]),
)
@settings(deadline=None, max_examples=400)
def test_arbitrary_claims_give_an_identity_of_the_right_types_or_token_invalid(changes, typ):
    jam = Jam({"secret": "Zk1-0uP9_mQvB7xTsW4hYc6LdR8eJ2nGfA3iKoVt5aE"}, clock=MovableClock())
    try:
        identity = accept(jam, typ=typ, **changes)
    except TokenInvalid:
        return
    assert identity.subject is None or (isinstance(identity.subject, str) and identity.subject)
    assert all(
        isinstance(name, str) for name in (*identity.roles, *identity.scopes, *identity.amr, identity.credential_id)
    )
    assert identity.client_id is None or isinstance(identity.client_id, str)
    assert type(identity.generation) is int
    assert type(identity.expires_at) in (int, float)
    assert identity.expires_at > jam.clock()
    jam.access_tokens.revoke(identity)


# -- revoking -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def durable(request, secret, clock, tmp_path):
    """A Jam on each engine."""
    jam = Jam(
        {"secret": secret, "store": "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jam.db"},
        clock=clock,
    )
    yield jam
    jam.store.close()


def test_asvs_7_4_1_a_revoked_token_is_dead_and_others_live(durable):
    tokens = durable.access_tokens
    first, second, third = tokens.issue("alice"), tokens.issue("alice"), tokens.issue("bob")
    tokens.revoke(first)
    refusal(durable, first, TokenRevoked)
    assert tokens.verify(second).subject == "alice"
    assert tokens.verify(third).subject == "bob"


def test_asvs_7_4_1_so_is_one_that_was_used_before(durable):
    tokens = durable.access_tokens
    token = tokens.issue("alice")
    identity = tokens.verify(token)
    tokens.revoke(identity)
    refusal(durable, token, TokenRevoked)


@pytest.mark.parametrize(
    "payload",
    [{"a": 1}, {"sub": "alice"}, {"sub": "alice", "jti": "mine"}, {"jti": "mine"}, {"jti": "A" * 24}],
    ids=repr,
)
def test_asvs_7_4_1_a_plain_token_is_revoked_likewise(durable, payload):
    tokens = durable.access_tokens
    token, other = tokens.sign(payload), tokens.sign({})
    tokens.revoke(token)
    refusal(durable, token, TokenRevoked)
    assert tokens.verify(other)


@pytest.mark.parametrize("jti", ["mine", "A" * 24], ids=repr)
def test_a_revocation_leaves_another_subjects_token_of_the_same_jti_alone(durable, jti):
    tokens = durable.access_tokens
    alices, bobs = (tokens.sign({"sub": subject, "jti": jti}) for subject in ("alice", "bob"))
    tokens.revoke(alices)
    refusal(durable, alices, TokenRevoked)
    assert tokens.verify(bobs).subject == "bob"


def test_revoking_twice_is_revoking_once(tokens, events):
    token = tokens.issue("alice")
    identity = tokens.verify(token)
    for thing in (token, token, identity):
        tokens.revoke(thing)
    with pytest.raises(TokenRevoked):
        tokens.verify(token)
    assert [type(event) for event in events] == [TokenIssued, Revoked]


def test_asvs_16_3_1_revoking_is_an_event_that_holds_no_token(tokens, events, clock):
    token = tokens.issue("alice")
    identity = tokens.verify(token)
    tokens.revoke(token)
    tokens.revoke_all("alice")
    tokens.revoke_all(None)
    assert events[1:] == [
        Revoked(at=clock.now, kind="access_token", subject="alice", credential_id=identity.credential_id),
        SubjectRevoked(at=clock.now, subject="alice", kinds=("access_token",)),
        SubjectRevoked(at=clock.now, subject=None, kinds=("access_token",)),
    ]
    assert token.rpartition(".")[2] not in repr(events)


def test_an_expired_token_is_left_in_peace(tokens, clock, events):
    token = tokens.issue("alice", lifetime=60)
    clock.move(60)
    tokens.revoke(token)
    with pytest.raises(TokenExpired):
        tokens.verify(token)
    assert [type(event) for event in events] == [TokenIssued]


def test_a_token_can_be_revoked_before_it_begins(tokens, clock):
    token = tokens.issue("alice", not_before=clock.now + 60)
    tokens.revoke(token)
    clock.move(60)
    with pytest.raises(TokenRevoked):
        tokens.verify(token)


def test_a_revocation_outlives_its_token_by_the_leeway(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"leeway": 60}}, clock=clock)
    token = jam.access_tokens.issue("alice", lifetime=60)
    clock.move(100)
    jam.access_tokens.revoke(token)
    for _ in range(19):
        clock.move(1)
        refusal(jam, token, TokenRevoked)
        jam.store.purge(clock.now)
    clock.move(1)
    refusal(jam, token, TokenExpired)


def test_what_is_not_ours_cannot_be_revoked(jam, clock):
    other = Jam({"secret": secrets.token_urlsafe(64)}, clock=clock)
    for token in (
        other.access_tokens.issue("alice"),
        "a.b.c",
        "",
        signed(jam, claims(jam), typ="refresh+jwt"),
        signed(jam, {}),
    ):
        with pytest.raises(TokenInvalid):
            jam.access_tokens.revoke(token)


def test_only_an_identity_that_a_token_proved_can_be_revoked(jam):
    session = jam.sessions.verify(jam.sessions.create("alice"))
    for identity in (ANONYMOUS, session):
        with pytest.raises(InvalidValue):
            jam.access_tokens.revoke(identity)


def test_asvs_7_4_5_all_tokens_of_a_subject_die_at_once_and_new_ones_live(durable):
    tokens = durable.access_tokens
    old = [tokens.issue("alice"), tokens.issue("alice"), tokens.sign({"sub": "alice"})]
    others = [
        tokens.issue("bob"),
        tokens.sign({}),
        tokens.issue("Alice"),
        tokens.issue("alice "),
        tokens.issue("álice"),
    ]
    tokens.verify(old[0])
    tokens.revoke_all("alice")
    for token in old:
        refusal(durable, token, TokenRevoked)
    for token in others:
        assert tokens.verify(token)
    for token in (tokens.issue("alice"), tokens.sign({"sub": "alice"})):
        assert tokens.verify(token).subject == "alice"


def test_asvs_7_4_5_all_tokens_of_everyone_die_at_once_and_new_ones_live(durable):
    tokens = durable.access_tokens
    tokens.revoke_all("alice")
    old = [tokens.issue("alice"), tokens.issue("bob"), tokens.sign({"sub": "carol"}), tokens.sign({})]
    for token in old:
        tokens.verify(token)
    tokens.revoke_all(None)
    for token in old:
        refusal(durable, token, TokenRevoked)
    for token in (tokens.issue("alice"), tokens.issue("bob"), tokens.sign({"sub": "carol"}), tokens.sign({})):
        assert tokens.verify(token)


def test_asvs_7_4_5_generations_rise_together_and_nothing_old_comes_back(durable):
    tokens = durable.access_tokens
    dead = []
    for subject in ("alice", None, "alice", None, None, "alice"):
        dead.append(tokens.issue("alice"))
        tokens.revoke_all(subject)
        for token in dead:
            refusal(durable, token, TokenRevoked)
        assert tokens.verify(tokens.issue("alice")).subject == "alice"


@pytest.mark.parametrize("subject", ["", 5, b"alice", ["alice"], "a\0", "x" * 256, True], ids=repr)
def test_a_subject_that_is_none_is_not_revoked(tokens, subject):
    with pytest.raises(InvalidValue):
        tokens.revoke_all(subject)


def test_asvs_15_4_2_a_token_of_a_generation_read_before_a_revocation_is_born_dead(durable):
    tokens = durable.access_tokens
    for subject in ("alice", None):
        before = tokens.generation("alice")
        tokens.revoke_all(subject)
        refusal(durable, tokens.issue("alice", generation=before), TokenRevoked)
        assert tokens.verify(tokens.issue("alice", generation=tokens.generation("alice"))).subject == "alice"


def test_a_generation_is_no_secret_way_to_outlive_a_revocation(jam):
    token = signed(jam, claims(jam, jam_gen=0))
    jam.access_tokens.revoke_all("alice")
    refusal(jam, token, TokenRevoked)
    refuse(jam, TokenRevoked)


def test_asvs_7_4_1_a_revocation_survives_a_restart(secret, clock, tmp_path):
    config = {"secret": secret, "store": f"sqlite:///{tmp_path}/jam.db"}
    before = Jam(config, clock=clock)
    one, all_of_bob, good = (before.access_tokens.issue(subject) for subject in ("alice", "bob", "carol"))
    before.access_tokens.revoke(one)
    before.access_tokens.revoke_all("bob")
    before.store.close()
    after = Jam(config, clock=clock)
    refusal(after, one, TokenRevoked)
    refusal(after, all_of_bob, TokenRevoked)
    assert after.access_tokens.verify(good).subject == "carol"
    after.store.close()


def test_a_revocation_is_collected_only_when_its_token_is_dead(durable, clock):
    tokens = durable.access_tokens
    token = tokens.issue("alice", lifetime=60)
    tokens.revoke(token)
    clock.move(59)
    durable.store.purge(clock.now)
    refusal(durable, token, TokenRevoked)
    clock.move(1 + COLLECT_AFTER)
    assert durable.store.purge(clock.now) == 1
    refusal(durable, token, TokenExpired)


def test_asvs_7_4_1_a_clock_that_goes_back_finds_a_revocation_again(durable, clock):
    token = durable.access_tokens.issue("alice", lifetime=60)
    durable.access_tokens.revoke(token)
    clock.move(61)
    durable.store.purge(clock.now)
    clock.move(-2)
    refusal(durable, token, TokenRevoked)


def test_asvs_7_4_1_a_revocation_holds_on_every_host_of_the_store(secret, clock, tmp_path):
    config = {"secret": secret, "store": f"sqlite:///{tmp_path}/jam.db"}
    here, there = Jam(config, clock=clock), Jam(config, clock=clock)
    one, all_of_bob, everyones = (here.access_tokens.issue(subject) for subject in ("alice", "bob", "carol"))
    for token in (one, all_of_bob, everyones):
        there.access_tokens.verify(token)  # it has them in its memory now
    here.access_tokens.revoke(one)
    refusal(there, one, TokenRevoked)
    here.access_tokens.revoke_all("bob")
    refusal(there, all_of_bob, TokenRevoked)
    here.access_tokens.revoke_all(None)
    refusal(there, everyones, TokenRevoked)
    here.store.close()
    there.store.close()


def test_stateless_tokens_cannot_be_revoked_and_that_is_said(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"stateless": True}}, clock=clock)
    token = jam.access_tokens.issue("alice")
    identity = jam.access_tokens.verify(token)
    for attempt in (
        lambda: jam.access_tokens.revoke(token),
        lambda: jam.access_tokens.revoke(identity),
        lambda: jam.access_tokens.revoke_all("alice"),
        lambda: jam.access_tokens.revoke_all(None),
    ):
        with pytest.raises(ConfigError, match="stateless"):
            attempt()
    assert jam.access_tokens.verify(token).subject == "alice"


def test_stateless_tokens_need_no_store(secret, clock):
    jam = Jam(
        {"secret": secret, "store": "sqlite:////no/such/place/jam.db", "access_tokens": {"stateless": True}},
        clock=clock,
    )
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).subject == "alice"
    assert jam.access_tokens.generation("alice") == 0


def test_asvs_16_5_3_a_store_that_cannot_be_asked_lets_nobody_pass(secret, clock):
    good = Jam({"secret": secret}, clock=clock).access_tokens.issue("alice")
    jam = Jam({"secret": secret, "store": "sqlite:////no/such/place/jam.db"}, clock=clock)
    for attempt in (
        lambda: jam.access_tokens.verify(good),
        lambda: jam.access_tokens.issue("alice"),
        lambda: jam.access_tokens.sign({"sub": "alice"}),
        lambda: jam.access_tokens.revoke(good),
        lambda: jam.access_tokens.revoke_all("alice"),
        lambda: jam.access_tokens.generation("alice"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            attempt()
        assert caught.value.status == 503
    refusal(jam, "a.b.c")  # what is bad without asking is bad all the same


def test_asvs_16_5_3_nor_does_one_that_fails_after_the_token_was_seen(secret, clock, tmp_path):
    path = tmp_path / "jam.db"
    jam = Jam({"secret": secret, "store": f"sqlite:///{path}"}, clock=clock)
    token = jam.access_tokens.issue("alice")
    assert jam.access_tokens.verify(token).subject == "alice"
    jam.store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreUnavailable):
        jam.access_tokens.verify(token)
    jam.store.close()


# -- keys that come and go ----------------------------------------------------------------------------------


def test_a_former_secret_verifies_and_no_longer_signs(secret, clock):
    former = secrets.token_urlsafe(64)
    before = Jam({"secret": former}, clock=clock)
    now = Jam({"secret": secret, "secret_fallbacks": [former]}, clock=clock)
    token = before.access_tokens.issue("alice")
    assert now.access_tokens.verify(token).subject == "alice"
    refusal(before, now.access_tokens.issue("alice"))
    refusal(Jam({"secret": secret}, clock=clock), token)


def test_a_rotation_keeps_tokens_until_the_old_key_is_removed(clock):
    old, new = Key.generate("ES256"), Key.generate("EdDSA")
    token = Jam({}, keys=KeySet(old), clock=clock).access_tokens.issue("alice")
    rotated = KeySet(old.public_key()).rotate(new)
    assert Jam({}, keys=rotated, clock=clock).access_tokens.verify(token).subject == "alice"
    refusal(Jam({}, keys=KeySet(new), clock=clock), token)


def test_a_public_key_verifies_elsewhere(clock):
    key = Key.generate("ES256")
    token = Jam({}, keys=KeySet(key), clock=clock).access_tokens.issue("alice")
    assert Jam({}, keys=KeySet(key.public_key()), clock=clock).access_tokens.verify(token).subject == "alice"


def test_asvs_9_1_2_hmac_and_asymmetric_keys_are_not_mixed_by_configuration(secret):
    with pytest.raises(InvalidKey):
        Jam(
            {
                "access_tokens": {
                    "private_key": Key.generate("ES256").to_pem(private=True),
                    "public_keys": [json.dumps(Key.generate("HS256").to_jwk(private=True))],
                }
            }
        ).keys


# -- what is remembered -------------------------------------------------------------------------------------


def test_a_token_seen_before_expires_all_the_same(tokens, clock):
    token = tokens.issue("alice", lifetime=60)
    for _ in range(60):
        assert tokens.verify(token).subject == "alice"
        clock.move(1)
    with pytest.raises(TokenExpired):
        tokens.verify(token)


def test_a_token_seen_before_expires_all_the_same_with_leeway(secret, clock):
    jam = Jam({"secret": secret, "access_tokens": {"leeway": 10}}, clock=clock)
    token = jam.access_tokens.issue("alice", lifetime=60)
    jam.access_tokens.verify(token)
    clock.move(69)
    jam.access_tokens.verify(token)
    clock.move(1)
    refusal(jam, token, TokenExpired)


def test_a_token_seen_before_is_the_same_identity(tokens):
    token = tokens.issue("alice", roles=["admin"], claims={"a": [1]})
    first, second = tokens.verify(token), tokens.verify(token)
    assert (first.subject, first.roles, first.payload) == (second.subject, second.roles, second.payload)


def test_a_refused_token_is_refused_each_time(jam):
    for token in (signed(jam, claims(jam, aud="other")), signed(jam, claims(jam, exp=1, iat=0)), "a.b.c"):
        for _ in range(3):
            with pytest.raises(TokenInvalid):
                jam.access_tokens.verify(token)


def test_a_revoked_token_is_revoked_each_time(tokens):
    token = tokens.issue("alice")
    tokens.verify(token)
    tokens.revoke(token)
    for _ in range(3):
        with pytest.raises(TokenRevoked):
            tokens.verify(token)


def test_what_is_remembered_is_bounded_and_forgetting_is_harmless(tokens):
    many = [tokens.issue("alice") for _ in range(1500)]
    for token in many:
        assert tokens.verify(token).subject == "alice"
    assert 512 < len(tokens._seen | tokens._seen_before) <= 1024
    for token in many:
        assert tokens.verify(token).subject == "alice"
    tokens.revoke(many[0])
    tokens.revoke(many[-1])
    for token in (many[0], many[-1]):
        with pytest.raises(TokenRevoked):
            tokens.verify(token)


def test_refused_tokens_take_no_room(jam):
    for number in range(50):
        for changes in ({"aud": "other"}, {"exp": number, "iat": number - 5}, {"nbf": 2**40 + number}):
            with pytest.raises(TokenInvalid):
                jam.access_tokens.verify(signed(jam, claims(jam, **changes)))
        with pytest.raises(TokenInvalid):
            jam.access_tokens.verify(f"a.b.{number}")
    assert not jam.access_tokens._seen
    assert not jam.access_tokens._seen_before


def in_threads(work, count=6):
    failures = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures


def test_what_is_remembered_is_bounded_among_threads_too(tokens):
    many = [tokens.issue(f"user-{number}") for number in range(5000)]

    def work(number):
        for index in range(8000):
            which = (index * 7 + number * 811) % len(many)
            assert tokens.verify(many[which]).subject == f"user-{which}"

    in_threads(work)
    assert len(tokens._seen | tokens._seen_before) <= 1024 + 6


def test_asvs_15_4_2_a_revocation_holds_in_every_thread_as_soon_as_it_returns(tokens):
    many = [tokens.issue("alice") for _ in range(400)]
    revoked = set()

    def work(number):
        if number == 0:
            for token in many[::2]:
                tokens.revoke(token)
                revoked.add(token)
            return
        for _ in range(3):
            for token in many:
                was_revoked = token in revoked
                try:
                    tokens.verify(token)
                except TokenRevoked:
                    assert token in many[::2]
                else:
                    assert not was_revoked

    in_threads(work)
    for index, token in enumerate(many):
        if index % 2 == 0:
            with pytest.raises(TokenRevoked):
                tokens.verify(token)
        else:
            assert tokens.verify(token).subject == "alice"


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        (TokenInvalid, "token_invalid", "The token is not valid."),
        (TokenExpired, "token_expired", "The token has expired."),
        (TokenNotYetValid, "token_not_yet_valid", "The token is not valid yet."),
        (TokenRevoked, "token_revoked", "The token has been revoked."),
    ],
)
def test_refusals_have_stable_codes_and_are_all_401(jam, clock, kind, code, message):
    revoked = jam.access_tokens.issue("alice")
    jam.access_tokens.revoke(revoked)
    token = {
        TokenInvalid: "a.b.c",
        TokenExpired: signed(jam, claims(jam, iat=int(clock.now) - 5, exp=int(clock.now))),
        TokenNotYetValid: signed(jam, claims(jam, nbf=int(clock.now) + 1)),
        TokenRevoked: revoked,
    }[kind]
    error = refusal(jam, token, kind)
    assert (error.code, error.status, error.message) == (code, 401, message)
    assert isinstance(error, CredentialError)
    assert isinstance(error, JamError)


def test_a_refusal_says_to_the_developer_which_claim_it_was(jam):
    for name, value in (
        ("aud", "other"),
        ("iss", "other"),
        ("exp", "x"),
        ("nbf", "x"),
        ("jti", 1),
        ("sub", 1),
        ("scope", 1),
        ("jam_gen", "x"),
        ("roles", "x"),
    ):
        error = refuse(jam, **{name: value})
        assert name in error.hint
        assert error.message == "The token is not valid."


def test_asvs_16_2_5_a_refusal_quotes_neither_token_nor_claims(jam, clock):
    marker = "hunter2"
    revoked = signed(jam, claims(jam, sub=marker, jti=marker))
    jam.access_tokens.revoke(revoked)
    texts = [
        revoked, marker, f"{marker}.{marker}.{marker}", signed(jam, claims(jam, iat=1, exp=2, sub=marker)), signed(jam, claims(jam, nbf=2**40, sub=marker)),
        signed(jam, claims(jam, sub="alice"), kid=marker),
        *(signed(jam, claims(jam, **{name: value})) for name in OWN for value in ([marker, 1], {marker: marker})),
        *(signed(jam, claims(jam, **{name: f"{marker}\0"})) for name in ("iss", "aud", "sub", "iat", "nbf", "exp", "roles", "amr")),
    ]  # fmt: skip
    for token in texts:
        with pytest.raises(TokenInvalid) as caught:
            jam.access_tokens.verify(token)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(vars(caught.value))
        assert marker not in told
        assert token not in told


def test_asvs_16_2_5_a_refused_argument_is_not_quoted(tokens):
    marker = "hunter2"
    for attempt in (
        lambda: tokens.issue("x" * 300 + marker),
        lambda: tokens.issue(f"{marker}\0"),
        lambda: tokens.issue("alice", claims={"a": f"{marker}\ud800"}),
        lambda: tokens.issue("alice", scopes=[f"{marker} x"]),
        lambda: tokens.sign({"exp": marker}),
        lambda: tokens.sign({"a": marker.encode()}),
    ):
        with pytest.raises(InvalidValue) as caught:
            attempt()
        assert marker not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
