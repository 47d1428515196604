"""The facade: settings in, wired parts out, and the seeds' short verbs."""

import logging
import os
import secrets
import subprocess
import sys

import pytest

from jam import Jam
from jam.crypto.keys import HMACKey, Key, KeySet
from jam.errors import ConfigError, InvalidKey, InvalidValue, SessionInvalid, TokenExpired, TokenInvalid
from jam.stores import open_store


def test_the_short_verbs_of_tokens(jam, clock):
    payload = jam.make_payload(user=1)
    assert set(payload) == {"iat", "exp", "jti", "user"}
    assert (payload["iat"], payload["exp"]) == (clock.now, clock.now + 900)
    token = jam.gen_jwt_token(payload)
    assert jam.verify_jwt_token(token) == {**payload, "iss": "jam", "aud": "jam"}


def test_exp_is_in_seconds_from_now(jam, clock):
    token = jam.gen_jwt_token(jam.make_payload(exp=10, user=1))
    clock.move(9)
    assert jam.verify_jwt_token(token)["user"] == 1
    clock.move(1)
    with pytest.raises(TokenExpired):
        jam.verify_jwt_token(token)


@pytest.mark.parametrize("exp", [0, -1, float("nan"), float("inf"), "60", True, 86401, 1e300, [], 10**400])
def test_an_exp_that_makes_no_sense_is_refused(jam, exp):
    with pytest.raises(InvalidValue):
        jam.make_payload(exp=exp)


def test_a_bare_payload_gets_what_it_lacks(jam, clock):
    payload = jam.verify_jwt_token(jam.gen_jwt_token({"user": 1}))
    assert set(payload) == {"user", "iat", "exp", "jti", "iss", "aud"}
    assert payload["exp"] == clock.now + 900


def test_what_a_payload_has_is_kept(jam, clock):
    given = {
        "user": 1,
        "iat": clock.now - 5,
        "exp": clock.now + 5,
        "jti": "mine",
        "iss": "jam",
        "aud": ["jam", "other"],
    }
    assert jam.verify_jwt_token(jam.gen_jwt_token(given)) == given


@pytest.mark.parametrize(
    "payload",
    [{"sub": 1}, {"sub": ""}, {"sub": None}, {"exp": "soon"}, {"exp": None}, {"iat": True}, {"aud": 5}, {"iss": 5}, {"jti": ""},
     {"x": object()}, {"x": float("nan")}, {1: 2}, ["user"], "user", None, {"roles": "admin"}, {"nbf": "x"}, {"exp": 9e15}],
)  # fmt: skip
def test_a_payload_that_could_never_be_accepted_back_is_refused(jam, payload):
    with pytest.raises(InvalidValue):
        jam.gen_jwt_token(payload)


def test_the_short_verbs_of_sessions(jam):
    handle = jam.create_session("alice", {"user": 1})
    assert jam.get_session(handle) == {"user": 1}
    jam.update_session(handle, {"theme": "dark"})
    assert jam.get_session(handle) == {"user": 1, "theme": "dark"}
    fresh = jam.rework_session(handle)
    assert jam.get_session(handle) is None
    assert jam.get_session(fresh) == {"user": 1, "theme": "dark"}
    other = jam.create_session("alice", {})
    jam.delete_session(fresh)
    jam.delete_session(fresh)
    assert (jam.get_session(fresh), jam.get_session(other)) == (None, {})
    jam.clear_sessions("alice")
    assert jam.get_session(other) is None
    with pytest.raises(SessionInvalid):
        jam.update_session(other, {"late": True})
    with pytest.raises(SessionInvalid):
        jam.rework_session(other)


def test_two_apps_with_one_secret_and_other_names_refuse_each_others_tokens(secret):
    """ASVS 9.2.4."""
    shop, blog = Jam({"secret": secret, "name": "shop"}), Jam({"secret": secret, "name": "blog"})
    token = shop.access_tokens.issue("alice")
    assert shop.access_tokens.verify(token).subject == "alice"
    with pytest.raises(TokenInvalid):
        blog.access_tokens.verify(token)


def test_former_secrets_still_verify(secret):
    old = Jam({"secret": secret})
    token = old.access_tokens.issue("alice")
    new = Jam({"secret": secrets.token_urlsafe(64), "secret_fallbacks": [secret]})
    assert new.access_tokens.verify(token).subject == "alice"
    with pytest.raises(TokenInvalid):
        old.access_tokens.verify(new.access_tokens.issue("alice"))
    with pytest.raises(TokenInvalid):
        Jam({"secret": secrets.token_urlsafe(64)}).access_tokens.verify(token)


def test_keys_are_derived_not_the_secret_itself(secret):
    jam = Jam({"secret": secret})
    assert secret not in str(jam.keys.current.to_jwk(private=True))
    assert isinstance(jam.keys.current, HMACKey)


def test_asvs_13_3_1_no_secret_means_keys_for_the_life_of_the_process_and_one_warning(caplog):
    jam = Jam()
    token = jam.access_tokens.issue("alice")
    assert jam.access_tokens.verify(token).subject == "alice"
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "SECRET_KEY" in warnings[0]
    with pytest.raises(TokenInvalid):
        Jam().access_tokens.verify(token)


@pytest.mark.parametrize(
    "weak", ["dev", "changeme", "x" * 64, "short-but-random-7Gq", "super-secret-key-that-is-long-enough-in-length"]
)
def test_asvs_13_3_1_a_weak_secret_is_refused_at_first_use_outside_debug(weak, caplog):
    jam = Jam({"secret": weak})
    with pytest.raises(ConfigError, match="secret") as caught:
        jam.access_tokens
    assert "secrets.token_urlsafe" in caught.value.hint
    assert weak not in str(caught.value)
    relaxed = Jam({"secret": weak, "debug": True})
    assert relaxed.access_tokens.verify(relaxed.access_tokens.issue("alice")).subject == "alice"
    assert "debug and testing" in caplog.text
    assert weak not in caplog.text.replace("secret weak", "")


def test_a_weak_fallback_is_refused_too(secret):
    with pytest.raises(ConfigError, match="secret_fallbacks"):
        Jam({"secret": secret, "secret_fallbacks": ["dev"]}).settings


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_secret_serves_every_hmac_algorithm(secret, algorithm):
    jam = Jam({"secret": secret, "access_tokens": {"algorithm": algorithm}})
    assert jam.keys.current.algorithm == algorithm
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).subject == "alice"


def test_a_secret_does_not_serve_an_asymmetric_algorithm(secret):
    with pytest.raises(InvalidKey, match="RS256"):
        Jam({"secret": secret, "access_tokens": {"algorithm": "RS256"}}).keys


@pytest.mark.parametrize("form", ["pem", "jwk", "file"])
def test_a_private_key_signs_and_public_keys_verify(form, tmp_path):
    import json

    old, new = Key.generate("ES256"), Key.generate("EdDSA")
    text = new.to_pem(private=True) if form != "jwk" else json.dumps(new.to_jwk(private=True))
    if form == "file":
        (tmp_path / "key.pem").write_text(text)
        text = str(tmp_path / "key.pem")
    issuer = Jam({"access_tokens": {"private_key": text, "public_keys": [old.to_pem()]}})
    before = Jam({"access_tokens": {"private_key": old.to_pem(private=True)}})
    assert issuer.access_tokens.verify(before.access_tokens.issue("alice")).subject == "alice"
    verifier = Jam({"access_tokens": {"public_keys": [new.to_pem()]}})
    assert verifier.access_tokens.verify(issuer.access_tokens.issue("bob")).subject == "bob"
    with pytest.raises(ConfigError, match="private_key"):
        verifier.access_tokens.issue("eve")
    assert [key["kid"] for key in issuer.keys.to_jwks()["keys"]] == [new.kid, old.kid]


def test_rs256_is_used_only_when_asked_for_by_name():
    pem = Key.generate("PS256").to_pem(private=True)
    assert Jam({"access_tokens": {"private_key": pem}}).keys.current.algorithm == "PS256"
    assert Jam({"access_tokens": {"private_key": pem, "algorithm": "RS256"}}).keys.current.algorithm == "RS256"


@pytest.mark.parametrize("text", ["/no/such/file", "-----BEGIN nonsense", "{}", "{", "\0", "x" * 100_000])
def test_a_key_that_cannot_be_read_is_a_config_error_that_does_not_repeat_it(text):
    with pytest.raises(ConfigError) as caught:
        Jam({"access_tokens": {"private_key": text}}).keys
    assert text not in str(caught.value)


def test_parts_can_be_given(secret, clock):
    store, keys = open_store("memory://"), KeySet(Key.generate("EdDSA"))
    jam = Jam(store=store, keys=keys, clock=clock)
    assert (jam.store, jam.keys) == (store, keys)
    assert jam.access_tokens.verify(jam.access_tokens.issue("alice")).expires_at == clock.now + 900


def test_parts_are_made_once_by_many_threads(secret):
    from concurrent.futures import ThreadPoolExecutor

    jam = Jam({"secret": secret})
    with ThreadPoolExecutor(8) as pool:
        parts = list(
            pool.map(lambda _: (jam.store, jam.keys, jam.access_tokens, jam.sessions, jam.settings), range(64))
        )
    assert all(all(one is first for one, first in zip(some, parts[0], strict=True)) for some in parts)


class Source:
    def __init__(self, lenient=False, **options):
        self._options, self._lenient = options, lenient

    def options(self):
        from jam.config import read_options

        return read_options(self._options, "jam")

    def allows_weak_secrets(self):
        return self._lenient


def fill(jam, source):
    jam.fill_from(lambda: source)
    return source


def test_a_source_fills_only_what_is_lacking(secret):
    jam = Jam({"name": "mine"})
    fill(jam, Source(name="theirs", secret=secret, sessions={"idle_for": 60}))
    assert (jam.settings.name, jam.settings.sessions.idle_for) == ("mine", 60)
    assert jam.settings.secret.value == secret.encode()


def test_sources_that_disagree_are_refused(secret):
    jam = Jam()
    fill(jam, Source(secret=secret))
    fill(jam, Source(secret=secret[::-1]))
    with pytest.raises(ConfigError, match="secret"):
        jam.settings


def test_sources_that_agree_are_welcome(secret):
    jam = Jam()
    fill(jam, Source(secret=secret, https=True))
    fill(jam, Source(secret=secret, https=False))
    assert jam.settings.https is None


def test_what_a_jam_says_itself_nobody_has_to_agree_on(secret):
    jam = Jam({"secret": secret})
    fill(jam, Source(secret=secret[::-1]))
    late = fill(jam, Source())
    jam.agree_with(late)
    assert jam.settings.secret.value == secret.encode()


def test_a_source_that_comes_too_late_to_count_is_refused(secret):
    jam = Jam()
    assert jam.settings.secret is None
    with pytest.raises(ConfigError, match="in use before"):
        jam.agree_with(Source(secret=secret))
    jam.agree_with(Source())


def test_a_strict_app_does_not_inherit_the_leniency_of_a_test(secret):
    jam = Jam({"secret": "dev"})
    fill(jam, Source(lenient=True))
    assert jam.settings.secret is not None
    with pytest.raises(ConfigError):
        jam.agree_with(Source(lenient=False))


def test_a_source_that_is_gone_is_forgotten(secret):
    jam = Jam()
    jam.fill_from(lambda: None)
    fill(jam, Source(secret=secret))
    assert jam.settings.secret is not None


@pytest.mark.parametrize("module", ["jam", "jam.checkpoints", "jam.jam"])
def test_the_core_does_not_import_flask_nor_an_engine_it_does_not_use(module):
    code = (
        f"import sys, {module}; "
        "assert not {'flask', 'werkzeug', 'sqlite3', 'jam.ext.flask', 'pytest'} & set(sys.modules), sys.modules.keys()"
    )
    # Whatever measures this suite would be imported there too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_an_app_without_a_secret_shares_that_of_another(secret):
    jam = Jam()
    fill(jam, Source(secret=secret))
    fill(jam, Source())
    assert jam.settings.secret.value == secret.encode()
