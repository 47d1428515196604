"""Keys: one algorithm each for life, weak ones refused at the door, and sets of them that rotate."""

import base64
import copy
import hashlib
import hmac
import json
import logging
import pickle
import secrets
import time
import traceback
from datetime import UTC, datetime, timedelta
from functools import cache

import jwt as pyjwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.crypto.jws import Signer, Verifier
from jam.crypto.keys import Key, KeySet, derive
from jam.crypto.weak_keys import weakness_of
from jam.errors import ConfigError, InvalidKey, TokenInvalid

HMAC = ("HS256", "HS384", "HS512")
EC = ("ES256", "ES384", "ES512")
PSS = ("PS256", "PS384", "PS512")
PKCS1 = ("RS256", "RS384", "RS512")
ED25519 = ("EdDSA", "Ed25519")
ASYMMETRIC = EC + PSS + PKCS1 + ED25519
ALGORITHMS = HMAC + ASYMMETRIC
SIGNATURE_BYTES = {
    "HS256": 32, "HS384": 48, "HS512": 64, "ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64, "Ed25519": 64,
    **dict.fromkeys(PSS + PKCS1, 256),
}  # fmt: skip

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def uint(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8 or 1, "big"))


def pem_of(private):
    return private.private_bytes(PEM, PKCS8, PLAIN).decode()


def public_pem_of(private):
    return private.public_key().public_bytes(PEM, SPKI).decode()


@cache
def rsa_private(bits=2048, exponent=65537):
    return rsa.generate_private_key(exponent, bits)


@cache
def key_for(algorithm):
    if algorithm in PSS + PKCS1:
        return Key.from_pem(pem_of(rsa_private()), algorithm)
    return Key.generate(algorithm)


@cache
def jwk_text(algorithm, private):
    return json.dumps(key_for(algorithm).to_jwk(private=private))


def jwk_for(algorithm, *, private=False):
    return json.loads(jwk_text(algorithm, private))


def token_of(keys, **payload):
    return Signer(keys, "JWT").sign(json.dumps(payload).encode())


def payload_of(keys, token):
    return Verifier(keys, ["JWT"]).verify(token)[1]


# -- making, signing, verifying -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_key_signs_it_verifies_and_nothing_else(algorithm):
    key = key_for(algorithm)
    signature = key.sign(b"data")
    assert key.verify(b"data", signature)
    assert not key.verify(b"Data", signature)
    assert not key.verify(b"", signature)
    assert not key.verify(b"data", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not key.verify(b"data", signature[:-1])
    assert not key.verify(b"data", signature + b"\0")
    assert not key.verify(b"data", b"")
    assert not key.verify(b"data", bytes(len(signature)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_has_the_length_its_standard_gives_it(algorithm):
    assert len(key_for(algorithm).sign(b"data")) == SIGNATURE_BYTES[algorithm]


@pytest.mark.parametrize("algorithm", HMAC + EC + ED25519)
def test_a_generated_key_has_the_algorithm_it_was_asked_for(algorithm):
    assert Key.generate(algorithm).algorithm == algorithm


@pytest.mark.parametrize("algorithm", HMAC + EC + ED25519)
def test_no_two_generated_keys_are_alike(algorithm):
    first, second = Key.generate(algorithm), Key.generate(algorithm)
    assert first.kid != second.kid
    assert not second.verify(b"data", first.sign(b"data"))


def test_asvs_11_2_3_a_generated_key_is_es256_unless_another_is_asked_for():
    assert Key.generate().algorithm == "ES256"


def test_asvs_11_2_3_a_generated_rsa_key_has_3072_bits():
    key = Key.generate("PS256")
    assert int.from_bytes(unb64(key.to_jwk()["n"]), "big").bit_length() == 3072
    assert key.algorithm == "PS256"


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_generated_hmac_secret_is_as_long_as_the_hash(algorithm, size):
    assert len(unb64(Key.generate(algorithm).to_jwk(private=True)["k"])) == size


@pytest.mark.parametrize(
    "algorithm",
    [
        "none",
        "None",
        "",
        "hs256",
        "HS256 ",
        "HS1",
        "HS",
        "ES256K",
        "ES",
        "RS1",
        "PS",
        "RSA-OAEP",
        "dir",
        "Ed448",
        "ed25519",
        "ES521",
        "A256KW",
        None,
        256,
    ],
)
def test_rfc8725_3_2_no_key_is_made_for_an_unknown_algorithm(algorithm):
    with pytest.raises(InvalidKey):
        Key.generate(algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rfc8725_3_1_a_key_accepts_its_own_algorithm_only_compared_exactly(algorithm):
    key = key_for(algorithm)
    own = set(ED25519) if algorithm in ED25519 else {algorithm}
    others = {
        *ALGORITHMS,
        "none",
        "",
        None,
        0,
        algorithm.lower(),
        algorithm.swapcase(),
        algorithm + " ",
        " " + algorithm,
        algorithm + "\0",
    }
    assert {name for name in others | own if key.accepts(name)} == own
    assert not key.accepts([algorithm])
    assert not key.accepts({"alg": algorithm})


@pytest.mark.parametrize("algorithm", ["ES256", "PS256"])
def test_two_signatures_of_one_text_differ_and_both_hold(algorithm):
    key = key_for(algorithm)
    first, second = key.sign(b"data"), key.sign(b"data")
    assert first != second
    assert key.verify(b"data", first)
    assert key.verify(b"data", second)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_in_base64url_is_accepted_in_one_spelling_only(algorithm):
    key = key_for(algorithm)
    segment = b64(key.sign(b"data")).encode()
    assert key.verify_segment(b"data", segment)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/= \n\x00\xff"
    for last in alphabet:
        assert key.verify_segment(b"data", segment[:-1] + bytes([last])) == (last == segment[-1])
        assert not key.verify_segment(b"data", segment + bytes([last]))
    standard = segment.translate(bytes.maketrans(b"-_", b"+/"))
    assert key.verify_segment(b"data", standard) == (standard == segment)


# -- vectors of the standards -------------------------------------------------------------------------------

RFC7638_KEY = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3"
    "oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6"
    "qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJ"
    "zKnqDKgw",
    "e": "AQAB",
}
RFC8037_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}


def test_rfc7638_3_1_the_example_rsa_key_has_the_examples_thumbprint():
    assert Key.from_jwk(RFC7638_KEY).kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_rfc7638_3_1_members_that_are_not_required_leave_the_thumbprint_alone():
    full = {**RFC7638_KEY, "alg": "RS256", "use": "sig", "key_ops": ["verify"], "x5t": "whatever"}
    assert Key.from_jwk(full).kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_rfc7638_3_1_the_examples_own_kid_stands():
    key = Key.from_jwk({**RFC7638_KEY, "alg": "RS256", "kid": "2011-04-29"})
    assert (key.kid, key.algorithm) == ("2011-04-29", "RS256")


def test_rfc8037_a_3_the_example_ed25519_key_has_the_examples_thumbprint():
    assert Key.from_jwk(RFC8037_KEY).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_rfc8037_a_4_the_example_ed25519_key_makes_the_examples_signature():
    data = b64(b'{"alg":"EdDSA"}') + "." + b64(b"Example of Ed25519 signing")
    assert b64(Key.from_jwk(RFC8037_KEY).sign(data.encode())) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


def test_rfc7515_a_1_the_example_hmac_key_makes_the_examples_signature():
    jwk = {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
    data = (
        b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
        b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    assert b64(Key.from_jwk(jwk).sign(data)) == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


def test_rfc7515_a_3_the_example_ec_key_verifies_the_examples_signature():
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    data = (
        b"eyJhbGciOiJFUzI1NiJ9"
        b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    signature = b"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    assert Key.from_jwk(jwk).verify_segment(data, signature)


# -- round trips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
@pytest.mark.parametrize("password", [None, b"correct horse"])
def test_a_private_key_survives_pem(algorithm, password):
    key = key_for(algorithm)
    again = Key.from_pem(key.to_pem(private=True, password=password), algorithm, password=password)
    assert (again.algorithm, again.kid, again.can_sign) == (algorithm, key.kid, True)
    assert key.verify(b"data", again.sign(b"data"))


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_key_survives_pem_and_cannot_sign(algorithm):
    key = key_for(algorithm)
    again = Key.from_pem(key.to_pem(), algorithm)
    assert (again.algorithm, again.kid, again.can_sign) == (algorithm, key.kid, False)
    assert again.verify(b"data", key.sign(b"data"))
    with pytest.raises(InvalidKey):
        again.sign(b"data")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("as_text", [False, str, bytes])
def test_a_private_key_survives_jwk(algorithm, as_text):
    key = key_for(algorithm)
    jwk = key.to_jwk(private=True)
    if as_text:
        jwk = json.dumps(jwk, indent=2)
        jwk = jwk.encode() if as_text is bytes else jwk
    again = Key.from_jwk(jwk)
    assert (again.algorithm, again.kid, again.can_sign) == (key.algorithm, key.kid, True)
    assert key.verify(b"data", again.sign(b"data"))
    assert again.to_jwk(private=True) == key.to_jwk(private=True)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_key_survives_jwk_and_cannot_sign(algorithm):
    key = key_for(algorithm)
    again = Key.from_jwk(key.to_jwk())
    assert (again.algorithm, again.kid, again.can_sign) == (key.algorithm, key.kid, False)
    assert again.verify(b"data", key.sign(b"data"))
    with pytest.raises(InvalidKey):
        again.sign(b"data")


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_the_public_half_of_a_key_holds_nothing_private(algorithm):
    key = key_for(algorithm)
    half = key.public_key()
    assert (half.algorithm, half.kid, half.can_sign) == (key.algorithm, key.kid, False)
    assert half.verify(b"data", key.sign(b"data"))
    assert half.to_jwk() == key.to_jwk()
    for ask in (lambda: half.sign(b"data"), lambda: half.to_jwk(private=True), lambda: half.to_pem(private=True)):
        with pytest.raises(InvalidKey):
            ask()


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_public_jwk_has_public_members_only(algorithm):
    assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & jwk_for(algorithm).keys()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_jwk_says_what_the_key_is_for(algorithm):
    key = key_for(algorithm)
    jwk = key.to_jwk(private=True)
    assert (jwk["alg"], jwk["use"], jwk["kid"]) == (key.algorithm, "sig", key.kid)


def test_a_public_pem_is_public():
    assert "PRIVATE" not in key_for("ES256").to_pem()


def test_a_kid_given_in_a_jwk_stays_through_every_form():
    key = Key.from_jwk({**jwk_for("ES256", private=True), "kid": "2024-a"})
    assert key.kid == key.public_key().kid == Key.from_jwk(key.to_jwk()).kid == "2024-a"


@pytest.mark.parametrize("private_format", [TRADITIONAL, PKCS8])
@pytest.mark.parametrize("make", [lambda: ec.generate_private_key(ec.SECP256R1()), rsa_private], ids=["EC", "RSA"])
def test_older_pem_forms_of_private_keys_are_read(make, private_format):
    private = make()
    assert Key.from_pem(private.private_bytes(PEM, private_format, PLAIN)).can_sign


def test_pem_with_ec_parameters_before_the_key_is_read():
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, TRADITIONAL, PLAIN).decode()
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert Key.from_pem(parameters + private).algorithm == "ES256"


def test_a_pkcs1_public_key_is_read():
    pem = rsa_private().public_key().public_bytes(PEM, serialization.PublicFormat.PKCS1)
    assert Key.from_pem(pem).kid == key_for("PS256").kid


def test_pem_and_jwk_of_one_key_have_the_same_kid():
    private = ec.generate_private_key(ec.SECP384R1())
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-384", "x": uint(numbers.x, 48), "y": uint(numbers.y, 48)}
    expected = b64(hashlib.sha256(json.dumps(dict(sorted(jwk.items())), separators=(",", ":")).encode()).digest())
    assert (
        Key.from_pem(pem_of(private)).kid
        == Key.from_pem(public_pem_of(private)).kid
        == Key.from_jwk(jwk).kid
        == expected
    )


@pytest.mark.parametrize("drop", [("dp", "dq", "qi"), ("p", "q", "dp", "dq", "qi"), ("qi",), ("dp",)])
def test_a_private_rsa_jwk_without_its_optional_members_is_completed(drop):
    jwk = {name: value for name, value in jwk_for("PS256", private=True).items() if name not in drop}
    assert key_for("PS256").verify(b"data", Key.from_jwk(jwk).sign(b"data"))


# -- exchange with another implementation -------------------------------------------------------------------


def pyjwt_name(algorithm):
    return "EdDSA" if algorithm == "Ed25519" else algorithm


def pyjwt_key(key, *, private):
    if key.family == "hmac":
        return unb64(key.to_jwk(private=True)["k"])
    return key.to_pem(private=private)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pyjwt_reads_what_jam_signs(algorithm):
    key = Key.from_jwk({**jwk_for(algorithm, private=True), "alg": pyjwt_name(algorithm)})
    token = token_of(KeySet(key), sub="alice", n=1)
    assert pyjwt.decode(token, pyjwt_key(key, private=False), algorithms=[pyjwt_name(algorithm)]) == {
        "sub": "alice",
        "n": 1,
    }
    assert pyjwt.get_unverified_header(token) == {"alg": pyjwt_name(algorithm), "typ": "JWT", "kid": key.kid}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("with_kid", [True, False])
def test_jam_reads_what_pyjwt_signs(algorithm, with_kid):
    key = key_for(algorithm)
    headers = {"kid": key.kid} if with_kid else {}
    token = pyjwt.encode({"sub": "alice"}, pyjwt_key(key, private=True), pyjwt_name(algorithm), headers=headers)
    typ, payload, text = Verifier(KeySet(key), ["JWT"]).verify(token)
    assert (typ, payload) == ("JWT", {"sub": "alice"})
    assert json.loads(text) == payload


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_pyjwt_reads_the_published_jwk(algorithm):
    key = Key.from_jwk({**jwk_for(algorithm, private=True), "alg": pyjwt_name(algorithm)})
    token = token_of(KeySet(key), sub="alice")
    published = pyjwt.PyJWKSet.from_dict(KeySet(key).to_jwks())[key.kid]
    assert pyjwt.decode(token, published, algorithms=[pyjwt_name(algorithm)]) == {"sub": "alice"}


def test_an_ecdsa_signature_keeps_its_leading_zeros():
    key = key_for("ES256")
    data, signature = next(
        (data, signature)
        for n in range(20_000)
        if (signature := key.sign(data := str(n).encode()))[0] == 0 or signature[32] == 0
    )
    assert len(signature) == 64
    assert key.verify(data, signature)


# -- refused: shared secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_rfc8725_3_5_an_hmac_secret_is_at_least_as_long_as_the_hash(algorithm, size):
    secret = secrets.token_bytes(size)
    assert Key.from_secret(secret, algorithm).algorithm == algorithm
    assert Key.from_jwk({"kty": "oct", "k": b64(secret), "alg": algorithm}).algorithm == algorithm
    for short in (secret[:-1], secret[:1], b""):
        with pytest.raises(InvalidKey):
            Key.from_secret(short, algorithm)
        with pytest.raises(InvalidKey):
            Key.from_jwk({"kty": "oct", "k": b64(short), "alg": algorithm})


@pytest.mark.parametrize("algorithm", [*ASYMMETRIC, "none", "HS1", "hs256", "HS256 ", "", "HS"])
def test_rfc8725_3_1_a_shared_secret_is_for_hmac_alone(algorithm):
    secret = secrets.token_bytes(64)
    with pytest.raises(InvalidKey):
        Key.from_secret(secret, algorithm)
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "oct", "k": b64(secret), "alg": algorithm})
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "oct", "k": b64(secret)}, algorithm)


def key_texts():
    key = key_for("ES256")
    private = ec.generate_private_key(ec.SECP256R1())
    openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    yield "public PEM", key.to_pem().encode()
    yield "private PEM", key.to_pem(private=True).encode()
    yield "RSA public PEM", key_for("PS256").to_pem().encode()
    yield "PKCS#1 public PEM", rsa_private().public_key().public_bytes(PEM, serialization.PublicFormat.PKCS1)
    yield "PEM behind whitespace", b"\n  \t" + key.to_pem().encode()
    yield "PEM behind other text", b"Bag Attributes\n    friendlyName: key\n" + key.to_pem().encode()
    yield "PEM behind a byte order mark", b"\xef\xbb\xbf" + key.to_pem().encode()
    yield "OpenSSH ECDSA", private.public_key().public_bytes(*openssh)
    yield "OpenSSH RSA", rsa_private().public_key().public_bytes(*openssh)
    yield "OpenSSH Ed25519", ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*openssh)
    yield "OpenSSH private", private.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, PLAIN)
    yield "certificate", certificate()
    yield "RSA public DER", rsa_private().public_key().public_bytes(DER, SPKI)
    yield "EC public DER", private.public_key().public_bytes(DER, SPKI)
    yield "public JWK", json.dumps(key.to_jwk()).encode()
    yield "JWKS", json.dumps(KeySet(key).to_jwks()).encode()


def certificate():
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jam.test")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
        .public_bytes(PEM)
    )


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in key_texts()])
def test_asvs_9_1_2_an_asymmetric_key_is_no_shared_secret(text):
    with pytest.raises(InvalidKey):
        Key.from_secret(text)
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "oct", "k": b64(text)})


@pytest.mark.parametrize("secret", [b"a" * 64, b"ab" * 32, b"\0" * 64, b"abcdefg" * 10, " " * 64], ids=repr)
def test_rfc8725_3_5_a_secret_of_few_different_bytes_is_refused(secret):
    with pytest.raises(InvalidKey):
        Key.from_secret(secret)


def test_text_and_its_utf_8_bytes_are_the_same_secret():
    text = secrets.token_urlsafe(40) + "é"
    assert Key.from_secret(text).kid == Key.from_secret(text.encode()).kid


def test_text_that_is_not_unicode_is_no_secret():
    with pytest.raises(InvalidKey):
        Key.from_secret("\ud800" + secrets.token_urlsafe(40))


@pytest.mark.parametrize("kid", ["", "x" * 257, 5, ["a"], {}, "\ud800"], ids=repr)
def test_a_kid_given_with_a_secret_is_checked_like_any_other(kid):
    with pytest.raises(InvalidKey):
        Key.from_secret(secrets.token_bytes(32), kid=kid)


# -- refused: RSA -------------------------------------------------------------------------------------------


def rsa_jwk(modulus, exponent=65537, **members):
    return {"kty": "RSA", "n": uint(modulus), "e": uint(exponent), **members}


def modulus_of(key):
    return int.from_bytes(unb64(key["n"]), "big")


def test_asvs_11_2_3_an_rsa_key_of_1024_bits_is_refused_in_every_form():
    private = rsa_private(1024)
    numbers = private.public_key().public_numbers()
    with pytest.raises(InvalidKey, match="1024"):
        Key.from_pem(pem_of(private))
    with pytest.raises(InvalidKey, match="1024"):
        Key.from_pem(public_pem_of(private))
    with pytest.raises(InvalidKey, match="1024"):
        Key.from_jwk(rsa_jwk(numbers.n))


def test_rfc7518_3_3_an_rsa_modulus_one_bit_short_of_2048_is_refused():
    modulus = modulus_of(RFC7638_KEY) >> 1 | 1
    assert modulus.bit_length() == 2047
    with pytest.raises(InvalidKey, match="2047"):
        Key.from_jwk(rsa_jwk(modulus))


def test_a_huge_rsa_modulus_is_refused_at_once():
    started = time.perf_counter()
    with pytest.raises(InvalidKey):
        Key.from_jwk(rsa_jwk((1 << 16384) + 1))
    with pytest.raises(InvalidKey):
        Key.from_jwk(rsa_jwk((1 << 200_000) + 1))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, 17, 257, 65535, 65536, 65539, 2**32 + 15, 2**2048 + 1])
def test_an_rsa_key_of_any_exponent_but_65537_is_refused(exponent):
    with pytest.raises(InvalidKey):
        Key.from_jwk(rsa_jwk(modulus_of(RFC7638_KEY), exponent))


def test_an_rsa_pem_with_exponent_3_is_refused():
    private = rsa_private(2048, 3)
    with pytest.raises(InvalidKey, match="exponent"):
        Key.from_pem(pem_of(private))
    with pytest.raises(InvalidKey, match="exponent"):
        Key.from_pem(public_pem_of(private))


@pytest.mark.parametrize("factor", [2, 3, 5, 7, 11, 13, 101, 167])
def test_rfc8725_3_4_an_rsa_modulus_with_a_small_factor_is_refused(factor):
    modulus = (modulus_of(RFC7638_KEY) // factor + 1) * factor
    assert modulus % factor == 0
    with pytest.raises(InvalidKey, match="small factor"):
        Key.from_jwk(rsa_jwk(modulus))


@pytest.mark.parametrize("power", [0, 1, 2, 77])
def test_rfc8725_3_4_an_rsa_modulus_with_the_fingerprint_of_roca_is_refused(power):
    product = 1
    for prime in (n for n in range(2, 168) if all(n % d for d in range(2, n))):
        product *= prime
    # A power of 65537 modulo every small prime, as the moduli of CVE-2017-15361 are.
    modulus = (1 << 2047) // product * product + product + pow(65537, power, product)
    assert modulus.bit_length() == 2048
    with pytest.raises(InvalidKey, match="ROCA"):
        Key.from_jwk(rsa_jwk(modulus))


def test_sound_rsa_moduli_are_not_taken_for_roca():
    assert Key.from_jwk(RFC7638_KEY).algorithm == "PS256"
    assert Key.from_jwk(rsa_jwk(rsa_private().public_key().public_numbers().n)).algorithm == "PS256"


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "n"])
@pytest.mark.parametrize("change", ["plus two", "one", "zero", "another key's", "huge"])
def test_rfc8725_3_4_rsa_numbers_that_do_not_belong_together_are_refused(member, change):
    jwk = jwk_for("PS256", private=True)
    value = int.from_bytes(unb64(jwk[member]), "big")
    other = json.loads(json.dumps(other_rsa_jwk()))[member]
    jwk[member] = {
        "plus two": uint(value + 2), "one": uint(1), "zero": uint(0), "another key's": other, "huge": uint(value << 4096 | 1),
    }[change]  # fmt: skip
    with pytest.raises(InvalidKey):
        Key.from_jwk(jwk)


@cache
def other_rsa_jwk():
    return Key.from_pem(pem_of(rsa.generate_private_key(65537, 2048))).to_jwk(private=True)


def test_a_private_rsa_exponent_longer_than_the_modulus_is_refused_at_once():
    jwk = {
        name: value
        for name, value in jwk_for("PS256", private=True).items()
        if name not in ("p", "q", "dp", "dq", "qi")
    }
    jwk["d"] = uint(secrets.randbits(300_000) | 1)
    started = time.perf_counter()
    with pytest.raises(InvalidKey):
        Key.from_jwk(jwk)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("missing", ["p", "q"])
def test_an_rsa_jwk_with_one_prime_only_is_refused(missing):
    jwk = jwk_for("PS256", private=True)
    del jwk[missing]
    with pytest.raises(InvalidKey):
        Key.from_jwk(jwk)


def test_an_rsa_jwk_of_more_than_two_primes_is_refused():
    for oth in ([{"r": "AQAB", "d": "AQAB", "t": "AQAB"}], [], None):
        with pytest.raises(InvalidKey):
            Key.from_jwk({**jwk_for("PS256", private=True), "oth": oth})


def test_a_leading_zero_octet_does_not_make_another_rsa_key():
    jwk = rsa_jwk(modulus_of(RFC7638_KEY), n=b64(b"\0" + unb64(RFC7638_KEY["n"])))
    assert Key.from_jwk(jwk).to_jwk()["n"] == RFC7638_KEY["n"]


def test_asvs_11_2_3_an_rsa_key_is_for_ps256_unless_another_algorithm_is_asked_for_by_name():
    assert Key.from_pem(pem_of(rsa_private())).algorithm == "PS256"
    assert Key.from_pem(public_pem_of(rsa_private())).algorithm == "PS256"
    assert Key.from_jwk(RFC7638_KEY).algorithm == "PS256"
    assert Key.from_jwk(RFC7638_KEY, "RS256").algorithm == "RS256"
    assert Key.from_jwk({**RFC7638_KEY, "alg": "RS256"}).algorithm == "RS256"
    assert Key.from_pem(public_pem_of(rsa_private()), "RS512").algorithm == "RS512"


def test_rfc8725_3_1_a_pss_key_does_not_verify_pkcs1_signatures_nor_the_other_way_round():
    pss, pkcs1 = key_for("PS256"), key_for("RS256")
    assert not pss.verify(b"data", pkcs1.sign(b"data"))
    assert not pkcs1.verify(b"data", pss.sign(b"data"))
    assert not key_for("PS384").verify(b"data", pss.sign(b"data"))


@pytest.mark.parametrize(
    "algorithm", ["HS256", "ES256", "EdDSA", "RSA-OAEP", "RSA1_5", "PS", "RS", "RS1", "none", "", "rs256", "PS256 "]
)
def test_rfc8725_3_1_an_rsa_key_is_for_rsa_signatures_alone(algorithm):
    with pytest.raises(InvalidKey):
        Key.from_pem(public_pem_of(rsa_private()), algorithm)
    with pytest.raises(InvalidKey):
        Key.from_jwk({**RFC7638_KEY, "alg": algorithm})
    with pytest.raises(InvalidKey):
        Key.from_jwk(RFC7638_KEY, algorithm)


# -- refused: elliptic curves -------------------------------------------------------------------------------

P256_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(("algorithm", "crv"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
def test_the_curve_decides_the_algorithm(algorithm, crv):
    jwk = jwk_for(algorithm)
    del jwk["alg"]
    assert jwk["crv"] == crv
    assert Key.from_jwk(jwk).algorithm == algorithm


@pytest.mark.parametrize("algorithm", EC)
def test_rfc8725_3_1_a_curve_cannot_be_used_for_anothers_algorithm(algorithm):
    for other in {*ALGORITHMS, "none", "ES256K", "ECDH-ES", "", algorithm.lower()} - {algorithm}:
        for attempt in (
            lambda: Key.from_jwk({**jwk_for(algorithm), "alg": other}),  # noqa: B023 - called at once
            lambda: Key.from_jwk(jwk_for(algorithm), other),  # noqa: B023
            lambda: Key.from_pem(key_for(algorithm).to_pem(), other),  # noqa: B023
        ):
            with pytest.raises(InvalidKey):
                attempt()


@pytest.mark.parametrize(
    "crv", ["secp256k1", "P-192", "P-224", "p-256", "P256", "Ed25519", "X25519", "", None, 256, ["P-256"], {}]
)
def test_an_ec_jwk_of_an_unknown_curve_is_refused(crv):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("ES256"), "crv": crv})


@pytest.mark.parametrize("crv", ["P-384", "P-521"])
def test_a_point_is_not_accepted_on_another_curve(crv):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("ES256"), "crv": crv, "alg": None})


@pytest.mark.parametrize("curve", [ec.SECP256K1, ec.BrainpoolP256R1, ec.SECP224R1])
def test_a_pem_of_another_curve_is_refused(curve):
    private = ec.generate_private_key(curve())
    for pem in (pem_of(private), public_pem_of(private)):
        with pytest.raises(InvalidKey):
            Key.from_pem(pem)


@pytest.mark.parametrize("algorithm", EC)
@pytest.mark.parametrize("member", ["x", "y"])
def test_rfc8725_3_4_a_point_off_its_curve_is_refused(algorithm, member):
    for private in (False, True):
        jwk = jwk_for(algorithm, private=private)
        data = bytearray(unb64(jwk[member]))
        data[-1] ^= 1
        with pytest.raises(InvalidKey):
            Key.from_jwk({**jwk, member: b64(bytes(data))})


@pytest.mark.parametrize(
    ("x", "y"),
    [(0, 0), (0, 1), (1, 1), (P256_FIELD, 0), (2**256 - 1, 2**256 - 1)],
    ids=["infinity", "0,1", "1,1", "p,0", "ones"],
)
def test_rfc8725_3_4_special_points_are_refused(x, y):
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "EC", "crv": "P-256", "x": uint(x, 32), "y": uint(y, 32)})


def test_rfc8725_3_4_a_coordinate_is_not_reduced_modulo_the_field():
    # A point whose x is so small that x + p still fits into 32 bytes: a second spelling of the same key.
    for x in range(5, 50):
        square = (x**3 - 3 * x + 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B) % P256_FIELD
        y = pow(square, (P256_FIELD + 1) // 4, P256_FIELD)
        if y * y % P256_FIELD == square:
            break
    assert Key.from_jwk({"kty": "EC", "crv": "P-256", "x": uint(x, 32), "y": uint(y, 32)}).algorithm == "ES256"
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "EC", "crv": "P-256", "x": uint(x + P256_FIELD, 32), "y": uint(y, 32)})


@pytest.mark.parametrize("member", ["x", "y", "d"])
@pytest.mark.parametrize("algorithm", EC)
def test_rfc7518_6_2_1_a_coordinate_has_exactly_the_length_of_its_curve(algorithm, member):
    jwk = jwk_for(algorithm, private=True)
    data = unb64(jwk[member])
    for wrong in (data[1:], data[:-1], b"\0" + data, data + b"\0", b"\0", b"\4" + data, data * 2):
        with pytest.raises(InvalidKey):
            Key.from_jwk({**jwk, member: b64(wrong)})


def test_rfc7518_6_2_1_a_coordinate_keeps_its_leading_zeros():
    private = next(
        private
        for n in range(1, 20_000)
        if (private := ec.derive_private_key(n, ec.SECP256R1())).public_key().public_numbers().x < 2**248
    )
    jwk = Key.from_pem(pem_of(private)).to_jwk(private=True)
    assert [len(unb64(jwk[name])) for name in "xyd"] == [32, 32, 32]
    assert unb64(jwk["x"])[0] == 0
    assert Key.from_jwk(jwk).sign(b"data")
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk, "x": b64(unb64(jwk["x"]).lstrip(b"\0"))})


@pytest.mark.parametrize(
    "d", [0, P256_ORDER, P256_ORDER + 1, 2**256 - 1, 1], ids=["0", "n", "n+1", "ones", "another's"]
)
def test_an_ec_private_value_out_of_range_or_of_another_key_is_refused(d):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("ES256", private=True), "d": uint(d, 32)})


@pytest.mark.parametrize("algorithm", EC + ED25519)
def test_halves_that_do_not_belong_together_are_refused(algorithm):
    other = Key.generate(algorithm).to_jwk(private=True)
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "d": other["d"]})


# -- refused: Ed25519 ---------------------------------------------------------------------------------------

SMALL_ORDER = [
    "00" * 32,  # order 4
    "01" + "00" * 31,  # the neutral element
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",  # order 8
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",  # order 8
    "ec" + "ff" * 30 + "7f",  # order 2
    "ed" + "ff" * 30 + "7f",  # order 4, not canonical
    "ee" + "ff" * 30 + "7f",  # the neutral element, not canonical
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_rfc8725_3_4_an_ed25519_point_of_small_order_is_refused_in_every_encoding(encoded, sign):
    data = bytearray.fromhex(encoded)
    data[31] |= sign
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64(bytes(data))})


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", range(2**255 - 19, 2**255))
def test_rfc8725_3_4_an_ed25519_y_that_is_not_canonical_is_refused(y, sign):
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64((y | sign << 255).to_bytes(32, "little"))})


def test_rfc8725_3_4_an_ed25519_point_off_the_curve_is_refused():
    prime = 2**255 - 19
    d = -121665 * pow(121666, -1, prime) % prime
    off = next(
        y
        for y in range(2, 50)
        if pow((y * y - 1) * pow(d * y * y + 1, -1, prime), (prime - 1) // 2, prime) == prime - 1
    )
    with pytest.raises(InvalidKey):
        Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64(off.to_bytes(32, "little"))})


def test_every_generated_ed25519_key_is_accepted():
    for _ in range(100):
        assert Key.from_jwk(Key.generate("EdDSA").to_jwk()).verify is not None


@pytest.mark.parametrize("member", ["x", "d"])
@pytest.mark.parametrize("size", [1, 31, 33, 57, 64])
def test_an_ed25519_key_has_32_bytes(member, size):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("EdDSA", private=True), member: b64((unb64(jwk_for("EdDSA")["x"]) * 2)[:size])})


@pytest.mark.parametrize("crv", ["Ed448", "X25519", "X448", "P-256", "ed25519", "", None, 25519, ["Ed25519"], {}])
def test_an_okp_jwk_of_another_curve_is_refused(crv):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("EdDSA"), "crv": crv})


def test_rfc9864_an_ed25519_key_answers_to_both_names():
    for name in ED25519:
        key = Key.from_jwk({**RFC8037_KEY, "alg": name})
        assert key.algorithm == name
        assert key.accepts("EdDSA")
        assert key.accepts("Ed25519")
        assert Key.from_jwk({**RFC8037_KEY, "alg": name}, "EdDSA").can_sign
        assert Key.from_jwk({**RFC8037_KEY, "alg": name}, "Ed25519").can_sign


@pytest.mark.parametrize("algorithm", ["Ed448", "ES256", "HS256", "ECDH-ES", "none", "", "eddsa", "ED25519"])
def test_rfc8725_3_1_an_ed25519_key_is_for_ed25519_alone(algorithm):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for("EdDSA"), "alg": algorithm})
    with pytest.raises(InvalidKey):
        Key.from_pem(key_for("EdDSA").to_pem(), algorithm)


# -- refused: JWK members -----------------------------------------------------------------------------------

FAMILIES = ("HS256", "ES256", "EdDSA", "PS256")


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize("use", ["enc", "SIG", "sig ", "", "signature", None, 1, True, ["sig"], {"sig": 1}], ids=repr)
def test_rfc7517_4_2_a_key_for_another_use_is_refused(algorithm, use):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "use": use})


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize(
    "key_ops",
    [
        [], ["encrypt"], ["wrapKey", "unwrapKey"], ["deriveKey"], ["SIGN"], ["sign", "sign"], ["verify", "sign", "verify"],
        "sign", "verify", "", 1, True, {"sign": 1}, [1], [None], [["sign"]], ["sign", 1], [{}],
    ],
    ids=repr,
)  # fmt: skip
def test_rfc7517_4_3_key_ops_that_do_not_allow_signatures_are_refused(algorithm, key_ops):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "key_ops": key_ops})


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize("key_ops", [["sign", "verify"], ["verify", "sign"], ["sign"]], ids=repr)
def test_rfc7517_4_3_a_private_key_that_may_sign_signs(algorithm, key_ops):
    key = Key.from_jwk({**jwk_for(algorithm, private=True), "key_ops": key_ops})
    assert key.can_sign
    assert key_for(algorithm).verify(b"data", key.sign(b"data"))


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_rfc7517_4_3_a_key_that_may_only_verify_cannot_sign(algorithm):
    key = Key.from_jwk({**jwk_for(algorithm, private=True), "key_ops": ["verify"]})
    assert key.verify(b"data", key_for(algorithm).sign(b"data"))
    assert not key.can_sign
    with pytest.raises(InvalidKey):
        key.sign(b"data")
    with pytest.raises(InvalidKey):
        Signer(KeySet(key), "JWT")


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256"])
def test_rfc7517_4_3_a_public_key_that_may_only_sign_is_refused(algorithm):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm), "key_ops": ["sign"]})
    assert not Key.from_jwk({**jwk_for(algorithm), "key_ops": ["sign", "verify"]}).can_sign


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize("alg", [1, True, [], ["ES256"], {}, "", "none", "RSA-OAEP-256", "A256GCM"], ids=repr)
def test_rfc7517_4_4_a_key_for_another_algorithm_is_refused(algorithm, alg):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "alg": alg})


@pytest.mark.parametrize(
    ("algorithm", "asked"),
    [("HS256", "HS384"), ("ES256", "ES384"), ("EdDSA", "ES256"), ("PS256", "RS256"), ("PS256", "PS384")],
)
def test_rfc7517_4_4_a_key_marked_for_one_algorithm_is_not_used_for_another(algorithm, asked):
    with pytest.raises(InvalidKey):
        Key.from_jwk(jwk_for(algorithm, private=True), asked)


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize(
    "kty", ["", "oct ", "OCT", "ec", "rsa", "okp", "AKP", "DSA", None, 1, True, ["EC"], {"EC": 1}], ids=repr
)
def test_a_jwk_of_an_unknown_kty_is_refused(algorithm, kty):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "kty": kty})


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_a_jwk_with_anothers_kty_is_refused(algorithm):
    jwk = jwk_for(algorithm, private=True)
    for kty in {"oct", "EC", "OKP", "RSA"} - {jwk["kty"]}:
        with pytest.raises(InvalidKey):
            Key.from_jwk({**jwk, "kty": kty})


REQUIRED = {
    "HS256": ("kty", "k"),
    "ES256": ("kty", "crv", "x", "y"),
    "EdDSA": ("kty", "crv", "x"),
    "PS256": ("kty", "n", "e"),
}


@pytest.mark.parametrize(
    ("algorithm", "member"), [(name, member) for name, members in REQUIRED.items() for member in members]
)
def test_a_jwk_that_lacks_a_required_member_is_refused(algorithm, member):
    for private in (True, False) if algorithm != "HS256" else (True,):
        jwk = jwk_for(algorithm, private=private)
        del jwk[member]
        with pytest.raises(InvalidKey):
            Key.from_jwk(jwk)


BINARY = {
    "HS256": ("k",),
    "ES256": ("x", "y", "d"),
    "EdDSA": ("x", "d"),
    "PS256": ("n", "e", "d", "p", "q", "dp", "dq", "qi"),
}


@pytest.mark.parametrize(
    ("algorithm", "member"), [(name, member) for name, members in BINARY.items() for member in members]
)
def test_a_member_that_is_not_base64url_text_is_refused(algorithm, member):
    jwk = jwk_for(algorithm, private=True)
    good = jwk[member]
    wrong = [
        None, 1, 65537, 1.5, True, [], [good], {}, {"a": good}, "", good + "=", good + "==", good + "\n", " " + good, good[:2] + " " + good[2:],
        good + "+", "/" + good, good + "\0", good + "é", "é" * len(good), "\ud800", good + "\ud800", "A", good.encode(), "." + good,
    ]  # fmt: skip
    for value in wrong:
        with pytest.raises(InvalidKey):
            Key.from_jwk({**jwk, member: value})


@pytest.mark.parametrize("algorithm", FAMILIES)
@pytest.mark.parametrize("kid", ["", "x" * 257, 1, 0, True, 1.5, [], ["a"], {}, {"a": 1}, "\ud800"], ids=repr)
def test_a_kid_that_is_no_short_text_is_refused(algorithm, kid):
    with pytest.raises(InvalidKey):
        Key.from_jwk({**jwk_for(algorithm, private=True), "kid": kid})


def test_a_kid_may_be_any_other_text_and_still_names_its_key():
    for kid in ("a", "x" * 256, "../../etc/passwd", "é", "😀", "a b", "'; --"):
        keys = KeySet(Key.from_jwk({**jwk_for("EdDSA", private=True), "kid": kid}))
        assert payload_of(keys, token_of(keys, a=1)) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "null", "1", '"x"', "{", '{"kty":"oct"', "not json", '{"kty":"oct","kty":"EC"}', '{"keys":[]}',
        '\ufeff{"kty":"oct"}', "\ud800", b"\xff", b"\xff\xfe{\x00}\x00", '{"a":' * 100_000, "[" * 10_000,
        '{"kty":"oct","k":NaN}', b"",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_text_that_is_no_jwk_is_refused(text):
    with pytest.raises(InvalidKey):
        Key.from_jwk(text)


def test_a_jwk_with_a_duplicate_member_is_refused():
    text = jwk_text("ES256", True)
    with pytest.raises(InvalidKey):
        Key.from_jwk(text[:-1] + ',"use":"sig"}')


def test_over_long_key_text_is_refused_at_once():
    jwk = jwk_for("ES256")
    pem = key_for("ES256").to_pem()
    started = time.perf_counter()
    for attempt in (
        lambda: Key.from_jwk(json.dumps({**jwk, "x5c": "A" * 10_000_000})),
        lambda: Key.from_pem(pem + " " * 10_000_000),
        lambda: Key.from_pem(b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 10_000_000),
    ):
        with pytest.raises(InvalidKey):
            attempt()
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("thing", [None, 1, [], ["kty"], {"kty"}, object()], ids=lambda thing: type(thing).__name__)
def test_what_is_neither_mapping_nor_text_is_no_key(thing):
    with pytest.raises(InvalidKey):
        Key.from_jwk(thing)
    with pytest.raises(InvalidKey):
        Key.from_pem(thing)


# -- refused: PEM -------------------------------------------------------------------------------------------


def other_pems():
    numbers = {
        "DSA": dsa.generate_private_key(2048), "X25519": x25519.X25519PrivateKey.generate(), "Ed448": ed448.Ed448PrivateKey.generate(),
    }  # fmt: skip
    for name, private in numbers.items():
        yield f"{name} private", pem_of(private)
        yield f"{name} public", public_pem_of(private)
    yield "certificate", certificate().decode()
    good = pem_of(ec.generate_private_key(ec.SECP256R1()))
    lines = good.splitlines()
    yield "nothing", ""
    yield "words", "not a key at all"
    yield "header only", "-----BEGIN PRIVATE KEY-----"
    yield "empty body", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"
    yield "empty public body", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"
    yield "cut", good[: len(good) // 2]
    yield "no footer", "\n".join(lines[:-1])
    yield "line lost", "\n".join([lines[0], *lines[2:]])
    yield "garbage body", "-----BEGIN PUBLIC KEY-----\n" + "QUJD" * 30 + "\n-----END PUBLIC KEY-----\n"
    yield "private called public", good.replace("PRIVATE", "PUBLIC")
    yield "not base64", good.replace(lines[1][:5], "!!!!!")
    yield "OpenSSH public", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"
    yield "not ascii", "-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----\n"
    yield "not unicode", "-----BEGIN PUBLIC KEY-----\n\ud800\n-----END PUBLIC KEY-----\n"
    yield "NUL", "\0" * 100


@pytest.mark.parametrize("pem", [pytest.param(pem, id=name) for name, pem in other_pems()])
def test_what_is_no_pem_of_a_signing_key_is_refused(pem):
    with pytest.raises(InvalidKey):
        Key.from_pem(pem)


def test_der_is_no_pem():
    with pytest.raises(InvalidKey):
        Key.from_pem(rsa_private().public_key().public_bytes(DER, SPKI))


@pytest.mark.parametrize("password", [None, b"wrong", b"", "correct horse"], ids=repr)
def test_an_encrypted_key_opens_with_its_own_password_only(password):
    pem = key_for("ES256").to_pem(private=True, password=b"correct horse")
    assert "ENCRYPTED" in pem
    with pytest.raises(InvalidKey):
        Key.from_pem(pem, password=password)


def test_a_password_for_a_key_that_has_none_is_refused():
    with pytest.raises(InvalidKey):
        Key.from_pem(key_for("ES256").to_pem(private=True), password=b"secret")


def test_an_hmac_key_has_neither_pem_nor_public_half():
    key = key_for("HS256")
    assert not hasattr(key, "to_pem")
    assert not hasattr(key, "public_key")
    with pytest.raises(InvalidKey):
        key.to_jwk()


# -- hostile input: nothing but InvalidKey ------------------------------------------------------------------

any_text = st.text(st.characters(), max_size=20)
base64url = st.binary(max_size=70).map(b64)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | base64url,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)
member_names = st.sampled_from(
    [
        "kty",
        "crv",
        "x",
        "y",
        "d",
        "n",
        "e",
        "p",
        "q",
        "dp",
        "dq",
        "qi",
        "oth",
        "k",
        "alg",
        "use",
        "key_ops",
        "kid",
        "x5c",
        "x5u",
    ]
)
member_values = (
    any_json
    | st.sampled_from(["oct", "EC", "OKP", "RSA", "P-256", "P-384", "P-521", "Ed25519", "sig", "enc", *ALGORITHMS])
    | st.lists(st.sampled_from(["sign", "verify", "encrypt"]), max_size=3)
)
mutations = st.lists(
    st.tuples(member_names, st.just("delete") | st.just("copy") | member_values, member_names), min_size=1, max_size=3
)


def assert_key_or_invalid_key(jwk):
    try:
        key = Key.from_jwk(jwk)
    except InvalidKey:
        return
    assert key.algorithm in ALGORITHMS
    assert isinstance(key.kid, str)
    Verifier(KeySet(key), ["JWT"])
    if key.can_sign:
        assert key.verify(b"data", key.sign(b"data"))


def mutate(jwk, changes):
    for name, value, other in changes:
        if value == "delete":
            jwk.pop(name, None)
        elif value == "copy":
            jwk[name] = jwk.get(other)
        else:
            jwk[name] = value
    return jwk


@given(
    st.sampled_from([("ES256", True), ("ES512", False), ("EdDSA", True), ("EdDSA", False), ("HS256", True)]), mutations
)
@settings(deadline=None, max_examples=400)
def test_a_mutated_jwk_gives_a_key_that_works_or_invalid_key(base, changes):
    assert_key_or_invalid_key(mutate(jwk_for(base[0], private=base[1]), changes))


@given(st.booleans(), mutations)
@settings(deadline=None, max_examples=60)
def test_a_mutated_rsa_jwk_gives_a_key_that_works_or_invalid_key(private, changes):
    assert_key_or_invalid_key(mutate(jwk_for("PS256", private=private), changes))


@given(st.dictionaries(member_names | any_text, member_values, max_size=6))
@settings(deadline=None, max_examples=200)
def test_an_arbitrary_mapping_gives_a_key_that_works_or_invalid_key(jwk):
    assert_key_or_invalid_key(jwk)


@given(st.integers(0, 240), st.binary(min_size=1, max_size=3) | st.just(b"\n"), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_mutated_pem_gives_a_key_or_invalid_key(position, junk, private):
    pem = key_for("ES256").to_pem(private=private).encode()
    try:
        assert Key.from_pem(pem[:position] + junk + pem[position + len(junk) :]).algorithm in EC
    except InvalidKey:
        pass


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_arbitrary_bytes_are_no_key(data):
    with pytest.raises(InvalidKey):
        Key.from_pem(data)
    with pytest.raises(InvalidKey):
        Key.from_jwk(data)


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=300))
@settings(deadline=None, max_examples=150)
def test_an_arbitrary_signature_is_bad_and_raises_nothing(algorithm, signature):
    assert not key_for(algorithm).verify(b"data", signature)
    assert not key_for(algorithm).verify_segment(b"data", signature)


# -- key sets -----------------------------------------------------------------------------------------------


def test_asvs_9_1_2_hmac_and_asymmetric_keys_do_not_verify_the_same_tokens():
    for algorithm in ("ES256", "EdDSA", "PS256"):
        with pytest.raises(InvalidKey):
            KeySet(key_for("HS256"), key_for(algorithm))
        with pytest.raises(InvalidKey):
            KeySet(key_for(algorithm), key_for("HS256"))
        with pytest.raises(InvalidKey):
            KeySet(key_for(algorithm)).rotate(key_for("HS256"))


def test_asymmetric_keys_of_several_algorithms_do():
    keys = KeySet(key_for("ES256"), key_for("EdDSA"), key_for("PS256"))
    assert keys.current is key_for("ES256")
    assert len(keys.keys) == 3


def test_two_keys_of_one_kid_are_refused():
    with pytest.raises(InvalidKey):
        KeySet(key_for("ES256"), key_for("ES256"))
    with pytest.raises(InvalidKey):
        KeySet(key_for("ES256"), key_for("ES256").public_key())
    with pytest.raises(InvalidKey):
        KeySet(*(Key.from_jwk({**jwk_for(name), "kid": "same"}) for name in ("ES256", "EdDSA")))
    with pytest.raises(InvalidKey):
        KeySet(key_for("ES256")).rotate(key_for("ES256"))


def test_a_key_is_found_by_its_kid_and_nothing_else():
    keys = KeySet(key_for("ES256"), key_for("EdDSA"))
    assert keys.get(key_for("EdDSA").kid) is key_for("EdDSA")
    for kid in ("", "unknown", key_for("PS256").kid, key_for("EdDSA").kid.lower(), key_for("EdDSA").kid + " "):
        assert keys.get(kid) is None


def test_after_a_rotation_new_tokens_have_the_new_key_and_old_ones_still_hold():
    old = KeySet(Key.generate("ES256"))
    new = old.rotate(Key.generate("ES256"))
    old_token, new_token = (token_of(keys, a=1) for keys in (old, new))
    assert pyjwt.get_unverified_header(new_token)["kid"] == new.current.kid != old.current.kid
    assert payload_of(new, old_token) == {"a": 1}
    assert payload_of(new, new_token) == {"a": 1}


def test_the_tokens_of_a_removed_key_are_dead():
    old = KeySet(Key.generate("ES256"))
    token = token_of(old, a=1)
    with pytest.raises(TokenInvalid):
        payload_of(KeySet(Key.generate("ES256")), token)


def test_a_rotation_leaves_the_set_it_came_from_alone():
    old = KeySet(Key.generate("ES256"))
    new = old.rotate(Key.generate("ES256"))
    assert len(old.keys) == 1
    assert len(new.keys) == 2
    with pytest.raises(TokenInvalid):
        payload_of(old, token_of(new, a=1))


def test_a_set_of_public_keys_verifies_and_does_not_sign():
    keys = KeySet(key_for("ES256"))
    public = KeySet(key_for("ES256").public_key())
    assert payload_of(public, token_of(keys, a=1)) == {"a": 1}
    with pytest.raises(InvalidKey):
        Signer(public, "JWT")


def test_a_published_set_holds_the_public_keys_with_their_kids():
    keys = KeySet(key_for("ES256"), key_for("PS256").public_key(), key_for("EdDSA"))
    jwks = json.loads(json.dumps(keys.to_jwks()))
    assert [jwk["kid"] for jwk in jwks["keys"]] == [key.kid for key in keys.keys]
    assert [Key.from_jwk(jwk).can_sign for jwk in jwks["keys"]] == [False] * 3


def test_asvs_9_1_2_a_published_set_never_holds_a_secret_or_private_member():
    assert KeySet(key_for("HS256"), Key.generate("HS256")).to_jwks() == {"keys": []}
    for algorithm in ASYMMETRIC:
        for jwk in KeySet(key_for(algorithm)).to_jwks()["keys"]:
            assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & jwk.keys()


# -- secrecy ------------------------------------------------------------------------------------------------


def secrets_of(algorithm):
    jwk = jwk_for(algorithm, private=True)
    texts = [jwk[name] for name in ("k", "d", "p", "q") if name in jwk]
    return [*texts, *(unb64(text).hex() for text in texts), *(str(unb64(text)) for text in texts)]


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_asvs_16_2_5_no_form_of_a_key_as_text_shows_it(algorithm, caplog):
    key = key_for(algorithm)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("jam.tests").warning("%s %r %s", key, key, KeySet(key))
    shown = [repr(key), str(key), f"{key}", repr(KeySet(key)), repr([key]), repr({"key": key}), caplog.text]
    for secret in secrets_of(algorithm):
        assert not any(secret in text for text in shown)


def test_a_key_shows_what_it_is():
    assert "ES256" in repr(key_for("ES256"))
    assert key_for("ES256").kid in repr(key_for("ES256"))
    assert repr(key_for("ES256")) != repr(key_for("ES256").public_key())


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_keys_are_not_pickled_or_copied(algorithm):
    for thing in (key_for(algorithm), KeySet(key_for(algorithm))):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(thing, protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(key_for(algorithm))


@pytest.mark.parametrize(
    ("algorithm", "change"),
    [
        ("HS256", {"alg": "ES256"}), ("HS256", {"use": "enc"}), ("ES256", {"alg": "HS256"}), ("ES256", {"x": "AAAA"}),
        ("EdDSA", {"x": b64(bytes(32))}), ("PS256", {"p": "AQAB"}), ("PS256", {"e": "Aw"}), ("PS256", {"qi": "AQAB"}),
    ],
)  # fmt: skip
def test_asvs_16_2_5_a_refusal_does_not_repeat_the_key(algorithm, change):
    with pytest.raises(InvalidKey) as refusal:
        Key.from_jwk({**jwk_for(algorithm, private=True), **change})
    text = "".join(traceback.format_exception(refusal.value))
    assert not any(secret in text for secret in secrets_of(algorithm))


@pytest.mark.parametrize("secret", ["hunter2-is-my-password", "\ud800hunter2"])
def test_asvs_16_2_5_a_refusal_does_not_repeat_the_secret(secret):
    with pytest.raises(InvalidKey) as refusal:
        Key.from_secret(secret)
    assert "hunter2" not in "".join(traceback.format_exception(refusal.value))


def test_invalid_key_has_a_stable_code_and_says_what_to_do():
    with pytest.raises(InvalidKey) as refusal:
        Key.from_secret("short")
    assert refusal.value.code == "invalid_key"
    assert isinstance(refusal.value, ConfigError)
    assert "32" in refusal.value.message
    assert "secrets" in refusal.value.hint


# -- one secret, many purposes ------------------------------------------------------------------------------


def test_each_purpose_has_a_key_of_its_own():
    secret = secrets.token_bytes(32)
    derived = {derive(secret, purpose) for purpose in ("a", "b", "access tokens HS256", "access tokens HS512", "")}
    assert len(derived) == 5
    assert secret not in derived


def test_the_derivation_is_hkdf_sha256():
    secret = secrets.token_bytes(40)
    pseudo_random_key = hmac.digest(bytes(32), secret, "sha256")
    first = hmac.digest(pseudo_random_key, b"jam csrf\x01", "sha256")
    second = hmac.digest(pseudo_random_key, first + b"jam csrf\x02", "sha256")
    assert derive(secret, "csrf") == first
    assert derive(secret, "csrf", 64) == first + second


# -- secrets that should not be trusted ---------------------------------------------------------------------

FAMOUS = [
    "changeme", "change-me", "Change Me!", "dev", "secret", "SECRET_KEY", "super-secret", "password", "test", "flask", "none", "",
    "changeme" * 8, "change-me-" * 8, "CHANGE_ME_" * 8, "changemechangemechangemechangeme1",
    "your-256-bit-secret", "your-256-bit-secret-your-256-bit-secret",
    "super-secret-key-that-is-quite-long-indeed", "supersecretsupersecretsupersecret",
    "this-is-my-secret-key-do-not-tell-anyone", "django-insecure-0f#k2x8$b7(q1w!z5m+9a_h4v6j^c3n",
    "my-secret-key-my-secret-key-my-secret-key", "you-will-never-guess-you-will-never-guess",
    "password" * 5, "12345678901234567890123456789012", "password1234567890password1234567890",
    # what the documentation of widely used software shows, long enough to look random
    "a-string-secret-at-least-256-bits-long",  # jwt.io
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",  # Flask
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI
    # runs along the alphabet and the keyboard
    "0123456789abcdef" * 4, "0123456789" * 4, "abcdefghijklmnopqrstuvwxyz123456", "qwertyuiopasdfghjklzxcvbnm123456",
]  # fmt: skip


@pytest.mark.parametrize("secret", FAMOUS)
def test_asvs_13_3_1_a_secret_that_everybody_knows_is_weak(secret):
    assert weakness_of(secret)
    assert weakness_of(secret.encode())


@pytest.mark.parametrize("secret", ["a" * 40, "ab" * 30, "abcdefg" * 6, "\0" * 64, " " * 64, "-" * 64], ids=repr)
def test_asvs_13_3_1_a_secret_that_repeats_itself_is_weak(secret):
    assert weakness_of(secret)


def test_asvs_13_3_1_a_short_secret_is_weak():
    for size in (0, 1, 8, 16, 24, 31):
        assert weakness_of(secrets.token_bytes(size))
    assert weakness_of(secrets.token_hex(15))


def test_asvs_13_3_1_random_secrets_are_trusted():
    for _ in range(2000):
        assert weakness_of(secrets.token_hex(32)) is None
        assert weakness_of(secrets.token_urlsafe(32)) is None
        assert weakness_of(secrets.token_bytes(32)) is None


@pytest.mark.parametrize("secret", ["hunter2-hunter2", "hunter2" * 9, "changeme-hunter2-hunter2-hunter2-hunter2"])
def test_asvs_13_3_1_a_weakness_is_told_without_the_secret(secret):
    assert "hunter2" not in weakness_of(secret)


def test_text_that_is_not_unicode_is_weak():
    assert weakness_of("\ud800" + secrets.token_urlsafe(40))


@pytest.mark.parametrize("secret", [secret for secret in FAMOUS if secret])
def test_asvs_13_3_1_jam_refuses_a_weak_secret_outside_debug(secret):
    with pytest.raises(ConfigError) as refusal:
        Jam({"secret": secret}).keys
    assert refusal.value.code == "config_error"
    assert "token_urlsafe" in refusal.value.hint
    with pytest.raises(ConfigError):
        Jam({"secret": secrets.token_urlsafe(40), "secret_fallbacks": [secret]}).keys


def test_asvs_13_3_1_in_debug_a_weak_secret_passes_with_a_warning_that_does_not_show_it(caplog):
    jam = Jam({"secret": "hunter2-hunter2", "debug": True})
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).subject == "alice"
    assert "secret" in caplog.text
    assert "hunter2" not in caplog.text


def test_asvs_13_3_1_without_a_secret_keys_live_as_long_as_the_process_and_a_warning_says_so(caplog):
    first, second = Jam({}), Jam({})
    token = first.access_tokens.issue("alice")
    assert first.access_tokens.verify(token).subject == "alice"
    with pytest.raises(TokenInvalid):
        second.access_tokens.verify(token)
    assert "JAM__SECRET" in caplog.text


@pytest.mark.parametrize("algorithm", HMAC)
def test_the_app_s_secret_gives_each_hmac_algorithm_a_key_of_its_own(algorithm):
    secret = secrets.token_urlsafe(40)
    jam = Jam({"secret": secret, "access_tokens": {"algorithm": algorithm}})
    token = jam.access_tokens.issue("alice")
    assert pyjwt.get_unverified_header(token)["alg"] == algorithm
    with pytest.raises(pyjwt.InvalidSignatureError):
        pyjwt.decode(token, secret.ljust(64), algorithms=[algorithm], audience="jam")


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "PS256", "none", "hs256"])
def test_asvs_9_1_2_the_app_s_secret_is_for_hmac_alone(algorithm):
    with pytest.raises(InvalidKey):
        Jam({"secret": secrets.token_urlsafe(40), "access_tokens": {"algorithm": algorithm}}).keys


@pytest.mark.parametrize("form", ["pem", "jwk", "file"])
def test_a_configured_private_key_signs_and_its_public_half_verifies_elsewhere(form, tmp_path):
    key = key_for("ES256")
    private, public = key.to_pem(private=True), key.to_pem()
    if form == "jwk":
        private, public = jwk_text("ES256", True), json.dumps(key.to_jwk())
    if form == "file":
        (tmp_path / "private").write_text(private)
        (tmp_path / "public").write_text(public)
        private, public = str(tmp_path / "private"), str(tmp_path / "public")
    issuer = Jam({"access_tokens": {"private_key": private}})
    reader = Jam({"access_tokens": {"public_keys": [public]}})
    token = issuer.access_tokens.issue("alice")
    assert reader.access_tokens.verify(token).subject == "alice"
    with pytest.raises(ConfigError):
        reader.access_tokens.issue("alice")


@pytest.mark.parametrize(
    "text", ["no such file", "-----BEGIN PRIVATE KEY-----\nhunter2", '{"kty":"oct","k":"hunter2"}', "hunter2\0"]
)
def test_asvs_16_2_5_a_configured_key_that_cannot_be_read_is_not_repeated(text):
    with pytest.raises(ConfigError) as refusal:
        Jam({"access_tokens": {"private_key": text}}).keys
    assert "hunter2" not in "".join(traceback.format_exception(refusal.value))
