"""Compact JWS: what is accepted, and everything that is not.

Hostile tokens are signed with the real key wherever an attacker could not be refused for the signature alone:
so it is the rule under test that refuses them.
"""

import base64
import hashlib
import hmac
import json
import secrets
import socket
import time
import traceback
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.jws import MAX_TOKEN_LENGTH, Signer, Verifier
from jam.crypto.keys import Key, KeySet
from jam.errors import InvalidKey, TokenInvalid

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ALGORITHMS = ("HS256", "HS512", "ES256", "ES512", "EdDSA", "PS256", "RS256")
PAYLOAD = {"sub": "alice", "n": [1, {"a": None}]}
RSA = rsa.generate_private_key(65537, 2048)
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode(value):
    return json.dumps(value).encode()


@cache
def keys_for(algorithm):
    if algorithm in ("PS256", "RS256"):
        pem = RSA.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return KeySet(Key.from_pem(pem, algorithm))
    return KeySet(Key.generate(algorithm))


@cache
def valid_token(algorithm):
    return Signer(keys_for(algorithm), "JWT").sign(encode(PAYLOAD))


def verify(token, algorithm="HS256", types=("JWT",)):
    return Verifier(keys_for(algorithm), types).verify(token)


def refuse(token, algorithm="HS256", types=("JWT",)):
    with pytest.raises(TokenInvalid) as refusal:
        verify(token, algorithm, types)
    assert type(refusal.value) is TokenInvalid
    return refusal.value


def header_of(algorithm="HS256", **changes):
    key = keys_for(algorithm).current
    return {"alg": key.algorithm, "typ": "JWT", "kid": key.kid, **changes}


def signed(header, payload=PAYLOAD, *, algorithm="HS256", signature=None):
    """A token with this header and payload (objects, or bytes as they are), truly signed unless told otherwise."""
    parts = [part if isinstance(part, bytes) else encode(part) for part in (header, payload)]
    signing_input = ".".join(b64(part) for part in parts)
    if signature is None:
        signature = keys_for(algorithm).current.sign(signing_input.encode())
    return f"{signing_input}.{b64(signature)}"


# -- what is accepted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_signed_verifies(algorithm):
    typ, payload, text = verify(valid_token(algorithm), algorithm)
    assert (typ, payload, text) == ("JWT", PAYLOAD, encode(PAYLOAD))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc8725_3_11_a_header_names_algorithm_type_and_key_and_nothing_more(algorithm):
    header = valid_token(algorithm).partition(".")[0]
    key = keys_for(algorithm).current
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": key.algorithm, "typ": "JWT", "kid": key.kid}


def test_rfc8725_3_6_nothing_is_compressed():
    token = Signer(keys_for("HS256"), "JWT").sign(encode({"a": "x" * 5000}))
    assert len(token) > 5000
    assert "zip" not in json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_header_in_another_order_or_spelling_is_as_good(algorithm):
    header = header_of(algorithm)
    for text in (
        json.dumps(dict(reversed(header.items()))),
        json.dumps(header, indent=4),
        json.dumps(header).replace('"alg"', '"\\u0061lg"'),
        json.dumps({**header, "cty": "application/json", "other": {"a": [1]}}),
    ):
        assert verify(signed(text.encode(), algorithm=algorithm), algorithm)[1] == PAYLOAD


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_header_without_kid_is_as_good(algorithm):
    header = header_of(algorithm)
    del header["kid"]
    assert verify(signed(header, algorithm=algorithm), algorithm)[1] == PAYLOAD


def test_a_header_without_kid_finds_its_key_among_many():
    keys = KeySet(*(Key.generate(name) for name in ("ES256", "ES256", "EdDSA", "ES384")))
    for key in keys.keys:
        signing_input = f"{b64(encode({'alg': key.algorithm, 'typ': 'JWT'}))}.{b64(encode(PAYLOAD))}"
        token = f"{signing_input}.{b64(key.sign(signing_input.encode()))}"
        assert Verifier(keys, ["JWT"]).verify(token)[1] == PAYLOAD


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("key_name", ["EdDSA", "Ed25519"])
def test_rfc9864_ed25519_is_accepted_under_both_its_names(name, key_name):
    key = Key.from_jwk({**keys_for("EdDSA").current.to_jwk(private=True), "alg": key_name})
    signing_input = f"{b64(encode({'alg': name, 'typ': 'JWT', 'kid': key.kid}))}.{b64(encode(PAYLOAD))}"
    token = f"{signing_input}.{b64(key.sign(signing_input.encode()))}"
    assert Verifier(KeySet(key), ["JWT"]).verify(token)[1] == PAYLOAD


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
@settings(deadline=None, max_examples=60)
def test_any_object_that_is_signed_comes_back(payload):
    assert verify(Signer(keys_for("HS256"), "JWT").sign(encode(payload)))[1] == payload


# -- algorithms ---------------------------------------------------------------------------------------------

NONES = ["none", "None", "NONE", "nOnE", "noNE", "nonE", " none", "none ", "none\0", "", "null", "nоne", "none,HS256"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("none", NONES, ids=repr)
def test_rfc8725_3_2_alg_none_is_no_algorithm_in_any_spelling(none, algorithm):
    header = header_of(algorithm, alg=none)
    refuse(signed(header, algorithm=algorithm, signature=b""), algorithm)
    refuse(signed(header, algorithm=algorithm, signature=b"x"), algorithm)
    refuse(signed(header, algorithm=algorithm), algorithm)
    del header["kid"]
    refuse(signed(header, algorithm=algorithm, signature=b""), algorithm)
    refuse(signed(header, algorithm=algorithm).rpartition(".")[0], algorithm)


@pytest.mark.parametrize(
    "alg",
    [
        "hs256", "Hs256", "HS256 ", " HS256", "HS256\0", "HS256\n", "HS-256", "HS384", "HS512", "SHA256", "HMAC", "RS256", "ES256",
        "EdDSA", "A256KW", "dir", "HS256,none", None, 0, 1, 256, True, False, 1.5, [], ["HS256"], {}, {"HS256": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_rfc8725_3_1_an_alg_that_is_not_exactly_the_keys_own_is_refused(alg):
    refuse(signed(header_of(alg=alg)))
    header = header_of(alg=alg)
    del header["kid"]
    refuse(signed(header))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc8725_3_1_a_header_without_alg_is_refused(algorithm):
    header = header_of(algorithm)
    del header["alg"]
    refuse(signed(header, algorithm=algorithm), algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc8725_3_1_a_key_is_not_used_for_the_algorithm_of_another(algorithm):
    for other in set(ALGORITHMS) - {algorithm}:
        refuse(signed(header_of(algorithm, alg=other), algorithm=algorithm), algorithm)


def public_texts():
    public = RSA.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, SPKI)
    jwk = keys_for("RS256").current.to_jwk()
    return [
        pem, pem.rstrip(), pem.replace(b"\n", b"\r\n"), pem.replace(b"\n", b""), b"".join(pem.splitlines()[1:-1]),
        public.public_bytes(serialization.Encoding.DER, SPKI),
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1),
        json.dumps(jwk).encode(), json.dumps(jwk, separators=(",", ":")).encode(), jwk["n"].encode(),
        base64.urlsafe_b64decode(jwk["n"] + "=="), keys_for("RS256").current.kid.encode(), b"",
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_asvs_9_1_2_a_public_key_is_never_an_hmac_secret(alg, algorithm):
    for secret in public_texts():
        for header in (header_of(algorithm, alg=alg), {"alg": alg, "typ": "JWT"}):
            signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
            mac = hmac.digest(secret, signing_input, f"sha{alg[2:]}")
            refuse(signed(header, signature=mac), algorithm)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_asvs_9_1_2_neither_is_that_of_another_kind(algorithm):
    key = keys_for(algorithm).current
    for secret in (key.to_pem().encode(), encode(key.to_jwk()), base64.urlsafe_b64decode(key.to_jwk()["x"] + "=")):
        header = header_of(algorithm, alg="HS256")
        signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
        refuse(signed(header, signature=hmac.digest(secret, signing_input, "sha256")), algorithm)


# -- signatures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_asvs_9_1_1_rfc8725_3_3_a_signature_by_another_key_is_refused(algorithm):
    other = Key.generate(algorithm) if algorithm[:2] not in ("PS", "RS") else None
    other = other or Key.from_pem(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        algorithm,
    )
    for header in (header_of(algorithm), header_of(algorithm, kid=other.kid), {"alg": other.algorithm, "typ": "JWT"}):
        signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
        refuse(f"{signing_input.decode()}.{b64(other.sign(signing_input))}", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_asvs_9_1_1_a_missing_short_long_or_empty_signature_is_refused(algorithm):
    size = len(keys_for(algorithm).current.sign(b""))
    good = keys_for(algorithm).current.sign(valid_token(algorithm).rpartition(".")[0].encode())
    for wrong in (
        b"",
        b"\0",
        good[:-1],
        good[1:],
        good + b"\0",
        b"\0" + good,
        good * 2,
        bytes(size),
        b"\xff" * size,
        good[: size // 2],
    ):
        head = valid_token(algorithm).rpartition(".")[0]
        refuse(f"{head}.{b64(wrong)}", algorithm)
    refuse(head, algorithm)
    refuse(head + ".", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_asvs_9_1_1_a_signature_belongs_to_its_own_header_and_payload(algorithm):
    header, payload, signature = valid_token(algorithm).split(".")
    other = b64(encode({**PAYLOAD, "sub": "mallory"}))
    refuse(f"{header}.{other}.{signature}", algorithm)
    refuse(f"{payload}.{header}.{signature}", algorithm)
    refuse(f"{b64(encode(header_of(algorithm, x=1)))}.{payload}.{signature}", algorithm)
    # The dot is part of what is signed: it cannot wander.
    refuse(f"{header}{payload[:4]}.{payload[4:]}.{signature}", algorithm)


@pytest.mark.parametrize("algorithm", ["ES256", "ES512"])
def test_rfc7518_3_4_an_ecdsa_signature_is_raw_and_not_der(algorithm):
    header = header_of(algorithm)
    signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
    raw = keys_for(algorithm).current.sign(signing_input)
    half = len(raw) // 2
    r, s = int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    refuse(signed(header, signature=utils.encode_dss_signature(r, s)), algorithm)
    assert verify(signed(header, signature=raw), algorithm)[1] == PAYLOAD


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1


@pytest.mark.parametrize("r", [0, 1, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1, P256_FIELD, 2**256 - 1], ids=hex)
@pytest.mark.parametrize("s", [0, 1, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1, P256_FIELD, 2**256 - 1], ids=hex)
def test_rfc8725_3_4_special_values_of_r_and_s_are_refused(r, s):
    refuse(signed(header_of("ES256"), signature=r.to_bytes(32, "big") + s.to_bytes(32, "big")), "ES256")


def test_rfc8725_3_4_s_is_not_reduced_modulo_the_order():
    # The key is made for the signature: with r = (kG).x and s = 1, d = (s * k - hash) / r.
    k, s = 2**200 + 1, 1
    r = ec.derive_private_key(k, ec.SECP256R1()).public_key().public_numbers().x % P256_ORDER
    digest = int.from_bytes(hashlib.sha256(b"data").digest(), "big")
    private = ec.derive_private_key((s * k - digest) * pow(r, -1, P256_ORDER) % P256_ORDER, ec.SECP256R1())
    key = Key.from_pem(private.public_key().public_bytes(serialization.Encoding.PEM, SPKI))
    assert key.verify(b"data", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    assert not key.verify(b"data", r.to_bytes(32, "big") + (s + P256_ORDER).to_bytes(32, "big"))


def test_rfc8725_3_4_an_ed25519_signature_has_one_s_only():
    order = 2**252 + 27742317777372353535851937790883648493
    header = header_of("EdDSA")
    signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
    good = keys_for("EdDSA").current.sign(signing_input)
    s = int.from_bytes(good[32:], "little")
    assert verify(signed(header, signature=good), "EdDSA")[1] == PAYLOAD
    for other in (s + order, s + 2 * order, s + 8 * order):
        refuse(signed(header, signature=good[:32] + other.to_bytes(32, "little")), "EdDSA")


def test_rfc7518_3_5_a_pss_signature_has_a_salt_as_long_as_the_hash():
    header = header_of("PS256")
    signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
    for salt, accepted in ((32, True), (0, False), (20, False), (64, False)):
        signature = RSA.sign(signing_input, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())
        if accepted:
            assert verify(signed(header, signature=signature), "PS256")[1] == PAYLOAD
        else:
            refuse(signed(header, signature=signature), "PS256")


def test_rfc8725_3_1_padding_and_hash_of_an_rsa_signature_are_the_keys_own():
    header = header_of("PS256")
    signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
    for scheme, digest in (
        (padding.PKCS1v15(), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA1()), 32), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA512()), 64), hashes.SHA512()),
    ):
        refuse(signed(header, signature=RSA.sign(signing_input, scheme, digest)), "PS256")


def test_an_rsa_signature_is_not_accepted_plus_the_modulus():
    header = header_of("RS256")
    modulus = RSA.public_key().public_numbers().n
    signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}".encode()
    value = int.from_bytes(keys_for("RS256").current.sign(signing_input), "big") + modulus
    refuse(signed(header, signature=value.to_bytes(257, "big")), "RS256")
    if value < 1 << 2048:
        refuse(signed(header, signature=value.to_bytes(256, "big")), "RS256")


# -- every small change -------------------------------------------------------------------------------------


def test_asvs_9_1_1_a_token_with_any_one_character_changed_is_refused():
    token, check = valid_token("HS256"), Verifier(keys_for("HS256"), ["JWT"]).verify
    for position, old in enumerate(token):
        for new in ALPHABET + ".= +/\n\0é":
            if new != old:
                with pytest.raises(TokenInvalid):
                    check(token[:position] + new + token[position + 1 :])


@pytest.mark.parametrize("algorithm", ["HS512", "ES256", "EdDSA", "PS256"])
def test_asvs_9_1_1_so_is_that_of_any_other_algorithm(algorithm):
    token, check = valid_token(algorithm), Verifier(keys_for(algorithm), ["JWT"]).verify
    for position, old in enumerate(token):
        # The neighbour differs in the lowest bit: in a last character that bit is unused.
        for new in (ALPHABET[ALPHABET.find(old) ^ 1] if old != "." else "A", "."):
            if new != old:
                with pytest.raises(TokenInvalid):
                    check(token[:position] + new + token[position + 1 :])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc7515_2_every_other_spelling_of_a_signatures_bits_is_refused(algorithm):
    token = valid_token(algorithm)
    accepted = [last for last in ALPHABET if not refused(token[:-1] + last, algorithm)]
    assert accepted == [token[-1]]


def refused(token, algorithm="HS256"):
    try:
        verify(token, algorithm)
    except TokenInvalid:
        return True
    return False


@pytest.mark.parametrize("part", ["header", "payload"])
def test_rfc7515_2_every_other_spelling_of_a_signed_part_is_refused(part):
    key = keys_for("HS256").current
    for size in range(3):
        header = b64(encode(header_of(x="x" * size)))
        payload = b64(encode({"a": "x" * size}))
        good = header if part == "header" else payload
        accepted = []
        for last in ALPHABET:
            changed = good[:-1] + last
            signing_input = f"{changed}.{payload}" if part == "header" else f"{header}.{changed}"
            if not refused(f"{signing_input}.{b64(key.sign(signing_input.encode()))}"):
                accepted.append(last)
        assert accepted == [good[-1]]


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_asvs_9_1_1_a_token_cut_off_anywhere_is_refused(algorithm):
    token = valid_token(algorithm)
    for length in range(len(token)):
        assert refused(token[:length], algorithm)
        assert refused(token[length + 1 :], algorithm)


def test_asvs_9_1_1_a_token_with_any_character_missing_or_doubled_is_refused():
    token = valid_token("HS256")
    for position, character in enumerate(token):
        assert refused(token[:position] + token[position + 1 :])
        assert refused(token[:position] + character + token[position:])


INTRUDERS = [
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "=",
    "==",
    ".",
    "..",
    "{",
    "}",
    '"',
    "'",
    ",",
    ":",
    "+",
    "/",
    "\\",
    "%",
    "&",
    "é",
    "\u200b",
    "\ufeff",
    "Ａ",
    "\ud800",
    "\x7f",
]


@pytest.mark.parametrize("intruder", INTRUDERS, ids=ascii)
def test_rfc8725_3_14_a_character_outside_the_alphabet_is_refused_wherever_it_stands(intruder):
    token = valid_token("HS256")
    for position in range(len(token) + 1):
        assert refused(token[:position] + intruder + token[position:])


@pytest.mark.parametrize("intruder", [" ", "\n", "=", "==", "====", '"', "{", "\0", "é", "+", "/"], ids=ascii)
def test_rfc8725_3_14_also_where_it_is_signed(intruder):
    key = keys_for("HS256").current
    header, payload, _ = valid_token("HS256").split(".")
    for signing_input in (
        f"{intruder}{header}.{payload}", f"{header}{intruder}.{payload}", f"{header}.{intruder}{payload}", f"{header}.{payload}{intruder}",
        f"{header}.{payload[:6]}{intruder}{payload[6:]}", f"{header[:6]}{intruder}{header[6:]}.{payload}",
    ):  # fmt: skip
        signature = b64(key.sign(signing_input.encode()))
        refuse(f"{signing_input}.{signature}")
        refuse(f"{header}.{payload}.{signature}{intruder}")


def test_rfc8725_3_14_json_serializations_and_polyglots_are_refused():
    header, payload, signature = valid_token("HS256").split(".")
    flattened = {"protected": header, "payload": payload, "signature": signature}
    general = {"payload": payload, "signatures": [{"protected": header, "signature": signature}]}
    for text in (
        json.dumps(flattened), json.dumps(general), json.dumps(flattened, indent=1), json.dumps([valid_token("HS256")]),
        json.dumps(valid_token("HS256")), json.dumps({**flattened, "header": {"alg": "none"}}),
        # CVE-2022-39227: a JSON text that a careless decoder also reads as compact
        json.dumps({f" {header}.": "", "protected": header, "payload": b64(b'{"sub":"mallory"}'), "signature": signature}),
        f'{{" {header}.{payload}.{signature}":""}}', f'{{"{header}.":"", "payload":"{payload}", "signature":"{signature}"}}',
    ):  # fmt: skip
        refuse(text)


def test_rfc8725_3_13_a_jwe_is_refused_without_any_work():
    header, payload, signature = valid_token("HS256").split(".")
    jwe_header = b64(encode({"alg": "dir", "enc": "A256GCM", "typ": "JWT"}))
    refuse(f"{jwe_header}..{b64(bytes(12))}.{payload}.{b64(bytes(16))}")
    refuse(f"{header}.{b64(b'key')}.{b64(bytes(12))}.{payload}.{signature}")
    refuse(f"{header}.{payload}.{payload}.{payload}.{signature}")
    refuse(signed(header_of(enc="A256GCM")))
    refuse(signed(header_of(alg="PBES2-HS256+A128KW", enc="A128GCM", p2c=2**31 - 1, p2s="AAAA")))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 20, 5000])
def test_a_token_has_exactly_two_dots(count):
    header, payload, _ = valid_token("HS256").split(".")
    key = keys_for("HS256").current
    refuse("." * count)
    if count > 2:
        signing_input = header + "." * (count - 1) + payload
        refuse(f"{signing_input}.{b64(key.sign(signing_input.encode()))}")
        signing_input = f"{header}.{payload}" + ".x" * (count - 2)
        refuse(f"{signing_input}.{b64(key.sign(signing_input.encode()))}")
    if count < 2:
        signing_input = header if count else ""
        refuse(f"{signing_input}.{b64(key.sign(signing_input.encode()))}"[1 - count :])


@pytest.mark.parametrize("dots", [".", "..", "..."])
def test_leading_and_trailing_dots_are_refused(dots):
    refuse(valid_token("HS256") + dots)
    refuse(dots + valid_token("HS256"))


# -- what is no token at all --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [
        None,
        b"",
        0,
        1,
        1.5,
        True,
        [],
        ["a.b.c"],
        {},
        {"token": "a.b.c"},
        (),
        object(),
        valid_token("HS256").encode(),
        bytearray(b"a.b.c"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_text_is_refused(thing):
    refuse(thing)


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "..", "...", "a", "a.b", "a.b.c", "null", "undefined", "None", "Bearer", "\0", "\ud800", "\ud800.\udc00.\ud800", "é.é.é", "💥", "-.-.-", "A.A.A"],
    ids=ascii,
)  # fmt: skip
def test_text_that_is_no_token_is_refused(text):
    refuse(text)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_scheme_or_a_second_token_beside_the_token_is_refused(algorithm):
    token = valid_token(algorithm)
    for text in (
        f"Bearer {token}",
        f"bearer{token}",
        f"{token},{token}",
        f"{token} {token}",
        token * 2,
        f"{token}.{token}",
        f"token={token}",
    ):
        refuse(text, algorithm)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000, "." * 1_000_000, "a." * 500_000, "=" * 1_000_000, "é" * 500_000, "\ud800" * 1_000_000,
        valid_token("HS256") + "A" * 1_000_000, "A" * 1_000_000 + valid_token("HS256"),
        f"{b64(b'[' * 700_000)}.{b64(b'{}')}.AAAA", f"{valid_token('HS256').partition('.')[0]}.{'A' * 1_000_000}.AAAA",
        f"{valid_token('HS256').rpartition('.')[0]}.{'A' * 1_000_000}",
        f"{b64(encode(header_of(x='[' * 1_000_000)))}.e30.AAAA",
    ],
    ids=lambda text: ascii(text[:12]),
)  # fmt: skip
def test_a_huge_token_is_refused_at_once(text):
    started = time.perf_counter()
    refuse(text)
    refuse(text, "ES256")
    assert time.perf_counter() - started < 1


def test_a_token_may_be_so_long_and_no_longer():
    signer, key = Signer(keys_for("HS256"), "JWT"), keys_for("HS256").current
    room = (MAX_TOKEN_LENGTH - len(signer.sign(b"{}"))) * 3 // 4
    longest = signer.sign(encode({"a": "x" * (room - 8)}))
    assert MAX_TOKEN_LENGTH - 8 < len(longest) <= MAX_TOKEN_LENGTH
    assert verify(longest)[1] == {"a": "x" * (room - 8)}
    refuse(signer.sign(encode({"a": "x" * (room + 8)})))
    assert key.can_sign


def test_a_header_may_not_be_endless():
    assert verify(signed(header_of(x="x" * 500)))[1] == PAYLOAD
    refuse(signed(header_of(x="x" * 5000)))


# -- the header is hostile input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kid",
    [
        "../../dev/null", "/dev/null", "../../../../../../../../dev/null", "file:///dev/null", "http://127.0.0.1/key", "x' UNION SELECT 'key' --",
        "' OR '1'='1", "1; DROP TABLE keys", "*)(uid=*", "$(id)", "`id`", "|id", "{{7*7}}", "%00", "\0", "key\0", "\r\nX: y", "", " ", "k" * 10_000,
        "é", "💥", "unknown", "__class__", "current", "0", None, 0, 1, -1, 1.5, True, False, [], ["a"], {}, {"kid": "a"}, [[]],
    ],
    ids=lambda kid: ascii(kid)[:20],
)  # fmt: skip
@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_rfc8725_3_10_a_kid_that_names_none_of_the_keys_is_refused(kid, algorithm):
    refuse(signed(header_of(algorithm, kid=kid), algorithm=algorithm), algorithm)
    refuse(signed(header_of(algorithm, kid=kid), algorithm=algorithm, signature=b""), algorithm)


def test_rfc8725_3_10_a_kid_that_resembles_a_keys_is_refused():
    kid = keys_for("HS256").current.kid
    for other in (
        kid + " ",
        " " + kid,
        kid + "\0",
        kid[:-1],
        kid.swapcase(),
        kid + "=",
        [kid],
        {"kid": kid},
        f'"{kid}"',
    ):
        refuse(signed(header_of(kid=other)))


def test_rfc8725_3_8_a_kid_decides_which_key_is_tried():
    first, second = Key.generate("ES256"), Key.generate("ES256")
    keys = KeySet(first, second)
    signing_input = f"{b64(encode({'alg': 'ES256', 'typ': 'JWT', 'kid': first.kid}))}.{b64(encode(PAYLOAD))}"
    with pytest.raises(TokenInvalid):
        Verifier(keys, ["JWT"]).verify(f"{signing_input}.{b64(second.sign(signing_input.encode()))}")


@pytest.fixture
def server():
    """A real server that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256", "HS256"])
def test_asvs_9_1_3_a_key_is_never_taken_from_the_token_nor_fetched(algorithm, server):
    attacker = Key.generate("ES256")
    jwk = attacker.to_jwk()
    der = (
        attacker.to_pem()
        .replace("\n", "")
        .removeprefix("-----BEGIN PUBLIC KEY-----")
        .removesuffix("-----END PUBLIC KEY-----")
    )
    for offer in (
        {"jwk": jwk}, {"jwk": {"kty": "oct", "k": b64(b"k" * 32)}}, {"jku": server}, {"x5u": server}, {"x5c": [der]}, {"jwks": {"keys": [jwk]}},
        {"jku": server, "x5u": server, "x5c": [der], "jwk": jwk}, {"iss": server}, {"kid": server},
    ):  # fmt: skip
        for kid in ({}, {"kid": keys_for(algorithm).current.kid}, {"kid": attacker.kid}):
            header = {"alg": "ES256", "typ": "JWT", **kid, **offer}
            signing_input = f"{b64(encode(header))}.{b64(encode(PAYLOAD))}"
            refuse(f"{signing_input}.{b64(attacker.sign(signing_input.encode()))}", algorithm)


def test_asvs_9_1_3_a_key_offered_beside_a_good_signature_changes_nothing(server):
    for offer in (
        {"jwk": Key.generate("ES256").to_jwk()},
        {"jku": server},
        {"x5u": server},
        {"x5c": ["AAAA"]},
        {"jwk": 1},
        {"x5t": None},
    ):
        assert verify(signed(header_of(**offer)))[1] == PAYLOAD


@pytest.mark.parametrize(
    "crit",
    [["exp"], ["b64"], ["x"], ["alg"], ["crit"], ["typ", "x"], [], [""], [None], [1], [["x"]], "x", "", "exp", None, 0, 1, True, False, {}, {"x": 1}],
    ids=repr,
)  # fmt: skip
def test_rfc7515_4_1_11_crit_is_refused_whatever_it_holds(crit):
    refuse(signed(header_of(crit=crit)))
    refuse(signed(header_of(crit=crit, x=1)))
    refuse(signed(header_of(crit=crit, b64=True)))


@pytest.mark.parametrize("value", [False, True, None, 0, "false"], ids=repr)
def test_rfc7797_6_b64_is_refused_whatever_it_says(value):
    refuse(signed(header_of(b64=value)))
    refuse(signed(header_of(b64=value, crit=["b64"])))
    refuse(signed(header_of(b64=value, crit=[])))


def test_rfc7797_6_a_payload_that_is_not_encoded_is_refused():
    key = keys_for("HS256").current
    for header in (header_of(b64=False, crit=["b64"]), header_of()):
        signing_input = f"{b64(encode(header))}.{encode(PAYLOAD).decode()}"
        refuse(f"{signing_input}.{b64(key.sign(signing_input.encode()))}")
    refuse("{}..{}".format(*valid_token("HS256").split(".")[::2]))  # detached


@pytest.mark.parametrize("value", ["DEF", "", None, False, 1], ids=repr)
def test_rfc8725_3_6_zip_is_refused(value):
    refuse(signed(header_of(zip=value)))


@pytest.mark.parametrize(
    "header",
    [
        b"", b" ", b"{}", b"[]", b"null", b"1", b'"alg"', b"{", b"not json", b"\xff", b"\xef\xbb\xbf", b'["alg","HS256"]',
        b'{"alg":"HS256","alg":"HS256","typ":"JWT"}', b'{"alg":"none","alg":"HS256","typ":"JWT"}', b'{"alg":"HS256","typ":"JWT","\\u0061lg":"HS256"}',
        b'{"alg":"HS256","typ":"JWT","typ":"JWT"}', b'{"alg":"HS256","typ":"JWT","x":{"a":1,"a":2}}', b'{"alg":"HS256","typ":"JWT","x":NaN}',
        b'{"alg":"HS256","typ":"JWT"}x', b'{"alg":"HS256","typ":"JWT"}\0', b'{"alg":"HS256","typ":"JWT",}', b'{"alg":"HS256","typ":"JWT","x":"\xff"}',
        b'{"alg":"HS256","typ":"JWT","x":"\\ud800"}', b'\xef\xbb\xbf{"alg":"HS256","typ":"JWT"}', b'{"alg":"HS256","typ":"JWT","x":' + b"[" * 40 + b"]" * 40 + b"}",
        '{"alg":"HS256","typ":"JWT"}'.encode("utf-16"), '{"alg":"HS256","typ":"JWT"}'.encode("utf-16-le"), '{"alg":"HS256","typ":"JWT"}'.encode("utf-32"),
    ],
    ids=lambda header: repr(header)[:40],
)  # fmt: skip
def test_rfc8725_3_7_a_header_that_is_no_strict_json_object_is_refused(header):
    refuse(signed(header))


@pytest.mark.parametrize(
    "payload",
    [
        b"", b" ", b"[]", b"null", b"1", b'"x"', b"true", b"{", b"not json", b"\xff", b"{}{}", b"{}\0", b'{"a":1,}', b'{"a":NaN}', b'{"a":Infinity}',
        b'{"a":1e400}', b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'{"a":{"b":1,"b":2}}', b'{"a":"\xff"}', b'{"a":"\xc0\xaf"}', b'{"a":"\\ud800"}',
        b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16-le"), '{"a":1}'.encode("utf-32-be"),
        b'{"a":' * 40 + b"1" + b"}" * 40, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' + b"9" * 5000 + b"}", b"{'a':1}",
        valid_token("HS256").encode(),
    ],
    ids=lambda payload: repr(payload)[:40],
)  # fmt: skip
def test_rfc8725_3_7_a_payload_that_is_no_strict_json_object_is_refused(payload):
    refuse(signed(header_of(), payload))
    header, text = valid_token("HS256").partition(".")[0], b64(payload)
    refuse(f"{header}.{text}.{b64(keys_for('HS256').current.sign(f'{header}.{text}'.encode()))}")


def test_rfc7515_4_duplicate_claims_are_refused_though_they_are_signed():
    refuse(Signer(keys_for("HS256"), "JWT").sign(b'{"sub":"alice","sub":"mallory"}'))


# -- typ ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typ", ["JWT", "jwt", "Jwt", "application/JWT", "application/jwt", "APPLICATION/Jwt"])
def test_rfc8725_3_11_typ_is_compared_as_a_media_type(typ):
    assert verify(signed(header_of(typ=typ)))[0] == "JWT"


@pytest.mark.parametrize(
    "typ",
    [
        "", "at+jwt", "application/at+jwt", "JWS", "JOSE", "JOSE+JSON", "JWE", " JWT", "JWT ", "JWT\0", "JWT\n", "JWT;q=1", "JWT+x", "+jwt", "x+jwt",
        "application/", "application/application/jwt", "text/jwt", "jwt/application", "application /jwt", "ＪＷＴ", "secevent+jwt", "logout+jwt",
        "dpop+jwt", None, 0, 1, True, [], ["JWT"], {}, {"JWT": 1},
    ],
    ids=ascii,
)  # fmt: skip
def test_rfc8725_3_11_any_other_typ_is_refused(typ):
    refuse(signed(header_of(typ=typ)))


def test_rfc8725_3_11_a_token_without_typ_is_refused():
    header = header_of()
    del header["typ"]
    refuse(signed(header))
    del header["kid"]
    refuse(signed(header))


TYPES = ["at+jwt", "refresh+jwt", "JWT", "reset+jwt", "verify-mail+jwt", "mfa-pending+jwt"]


@pytest.mark.parametrize("made", TYPES)
@pytest.mark.parametrize("wanted", TYPES)
def test_asvs_9_2_2_rfc8725_3_12_a_token_passes_for_the_purpose_it_was_made_for_only(made, wanted):
    token = Signer(keys_for("HS256"), made).sign(encode(PAYLOAD))
    assert refused_as(token, wanted) == (made != wanted)
    foreign = signed(header_of(typ=made.upper(), x=1))
    assert refused_as(foreign, wanted) == (made != wanted)


def refused_as(token, typ):
    try:
        verify(token, types=(typ,))
    except TokenInvalid:
        return True
    return False


def test_a_verifier_of_several_types_says_which_it_was():
    for typ in TYPES:
        assert verify(Signer(keys_for("HS256"), typ).sign(b"{}"), types=TYPES)[0] == typ
        assert verify(signed(header_of(typ=f"application/{typ}"), {}), types=TYPES)[0] == typ


# -- refusals tell nothing ----------------------------------------------------------------------------------


def test_asvs_9_1_1_nothing_of_a_token_is_told_before_its_signature_holds():
    good, bad_payload, bad_signature = (
        signed(header_of()),
        signed(header_of(), b"no json"),
        signed(header_of(), signature=bytes(32)),
    )
    both = signed(header_of(), b"no json", signature=bytes(32))
    assert not refused(good)
    told = {
        (str(error), error.code, error.hint, error.status)
        for error in map(refuse, (bad_payload, bad_signature, both, "x"))
    }
    assert told == {("The token is not valid.", "token_invalid", "", 401)}


def test_asvs_16_2_5_a_refusal_quotes_neither_token_nor_claims():
    marker = "hunter2"
    for token in (
        marker, f"{marker}.{marker}.{marker}", signed(header_of(x=marker), {marker: marker}, signature=bytes(32)), signed({marker: marker}),
        signed(header_of(), f'{{"{marker}":"{marker}","{marker}":1}}'.encode()), signed(header_of(), f'{{"a":"{marker}'.encode()), f"\ud800{marker}",
        signed(header_of(alg=marker)), signed(header_of(kid=marker)), signed(header_of(typ=marker)), signed(header_of(), marker.encode() + b"\xff"),
    ):  # fmt: skip
        error = refuse(token)
        told = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
        assert marker not in told
        assert b64(marker.encode())[:8] not in told


# -- arbitrary input ----------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=200))
@settings(deadline=None)
def test_arbitrary_text_is_refused_and_raises_nothing_else(text):
    refuse(text)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
@settings(deadline=None)
def test_arbitrary_segments_are_refused(segments):
    refuse(".".join(map(b64, segments)))
    refuse(".".join(map(b64, segments)), "ES256")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5c", "zip", "enc", "cty"]),
        json_values,
        max_size=4,
    ),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_an_arbitrary_header_is_refused_or_leaves_the_token_as_it_is(changes, keep):
    header = {**header_of(), **changes} if keep else changes
    try:
        typ, payload, _ = verify(signed(header))
    except TokenInvalid:
        return
    assert (typ, payload) == ("JWT", PAYLOAD)
    assert header["alg"] == "HS256"
    assert not {"crit", "b64", "zip", "enc"} & header.keys()


@given(
    st.sampled_from(ALGORITHMS), st.integers(0, 2000), st.text(st.characters(), min_size=1, max_size=4), st.booleans()
)
@settings(deadline=None, max_examples=200)
def test_a_mutated_token_is_refused(algorithm, position, junk, insert):
    token = valid_token(algorithm)
    position %= len(token)
    changed = token[:position] + junk + token[position + (0 if insert else len(junk)) :]
    assert refused(changed, algorithm) == (changed != token)


def test_the_same_answer_for_a_token_with_and_without_our_own_kind_of_header():
    for wrong in (bytes(32), b"", secrets.token_bytes(32)):
        refuse(signed(encode(header_of()).replace(b" ", b""), signature=wrong))
        refuse(signed(header_of(extra=1), signature=wrong))


def test_a_signer_needs_a_private_key():
    public = KeySet(
        Key.from_pem(
            ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(serialization.Encoding.PEM, SPKI)
        )
    )
    with pytest.raises(InvalidKey):
        Signer(public, "JWT")
