"""Settings: where they come from, and what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.config import Secret, flat_options, read_options, settings_from
from jam.errors import ConfigError

STRONG = "kJ3-vUq8Zt_1rXw9bNc5LmA2pSd7Fg4H"


def test_defaults_need_no_configuration(monkeypatch):
    settings = settings_from(read_options(None, "jam"))
    assert (settings.name, settings.store, settings.https, settings.secret) == ("jam", "memory://", None, None)
    assert (settings.access_tokens.lifetime, settings.sessions.idle_for, settings.sessions.lifetime) == (
        900,
        3600,
        86400,
    )


def test_options_come_from_a_mapping():
    settings = settings_from(read_options({"name": "shop", "access_tokens": {"lifetime": 60}}, "jam"))
    assert (settings.name, settings.access_tokens.lifetime) == ("shop", 60)


def test_a_duration_may_be_a_timedelta():
    assert settings_from(read_options({"sessions": {"idle_for": timedelta(minutes=5)}}, "jam")).sessions.idle_for == 300


def test_options_come_from_the_table_of_a_toml_file_that_pointer_names(tmp_path):
    file = tmp_path / "app.toml"
    file.write_text('[tool.my-app.auth]\nname = "shop"\n[tool.my-app.auth.sessions]\nidle_for = 60\n')
    settings = settings_from(read_options(file, "tool.my-app.auth"))
    assert (settings.name, settings.sessions.idle_for) == ("shop", 60)
    assert Jam(str(file), pointer="tool.my-app.auth").settings.name == "shop"


def test_options_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("JAM__NAME", "shop")
    monkeypatch.setenv("JAM__SECRET", STRONG)
    monkeypatch.setenv("JAM__ACCESS_TOKENS__LIFETIME", "60")
    monkeypatch.setenv("JAM__ACCESS_TOKENS__STATELESS", "true")
    monkeypatch.setenv("JAM__HTTPS", "false")
    monkeypatch.setenv("JAM__CSRF__TRUSTED_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("JAM__SECRET_FALLBACKS", f"{STRONG}1,{STRONG}2")
    settings = Jam().settings
    assert (settings.name, settings.secret, settings.https) == ("shop", Secret(STRONG), False)
    assert (settings.access_tokens.lifetime, settings.access_tokens.stateless) == (60, True)
    assert settings.csrf.trusted_origins == ("https://a.example", "https://b.example")
    assert settings.secret_fallbacks == (Secret(f"{STRONG}1"), Secret(f"{STRONG}2"))


def test_code_is_stronger_than_the_environment_and_that_than_a_file(tmp_path, monkeypatch):
    file = tmp_path / "app.toml"
    file.write_text('[jam]\nname = "file"\nstore = "memory://"\n[jam.sessions]\nidle_for = 10\nlifetime = 20\n')
    monkeypatch.setenv("JAM__NAME", "environment")
    monkeypatch.setenv("JAM__SESSIONS__LIFETIME", "30")
    from_file = settings_from(read_options(file, "jam"))
    assert (from_file.name, from_file.sessions.idle_for, from_file.sessions.lifetime) == ("environment", 10, 30)
    from_code = settings_from(read_options({"name": "code", "sessions": {"idle_for": 5}}, "jam"))
    assert (from_code.name, from_code.sessions.idle_for, from_code.sessions.lifetime) == ("code", 5, 30)


def test_flat_names_find_their_section():
    options = flat_options({"JAM_SESSIONS_IDLE_FOR": 5, "JAM_NAME": "x", "JAM_STORE": None, "OTHER": 1, "JAMES": 2})
    assert options == {"sessions": {"idle_for": 5.0}, "name": "x"}


@pytest.mark.parametrize(
    ("config", "named", "nearest"),
    [
        ({"secrt": "x"}, "secrt", "secret"),
        ({"access_tokens": {"lifetme": 5}}, "access_tokens.lifetme", "access_tokens.lifetime"),
        ({"acess_tokens": {"lifetime": 5}}, "acess_tokens", "access_tokens"),
        ({"idle_for": 5}, "idle_for", "sessions.idle_for"),
        ({"sessions": {"leeway": 5}}, "sessions.leeway", "access_tokens.leeway"),
        ({"csrf": {"trusted_origin": []}}, "csrf.trusted_origin", "csrf.trusted_origins"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_valid_one(config, named, nearest):
    with pytest.raises(ConfigError) as caught:
        Jam(config)
    assert f"no option {named}." in caught.value.message
    assert caught.value.hint.startswith("Did you mean ")
    assert nearest in caught.value.hint


def test_an_unknown_environment_variable_is_named_with_the_nearest_valid_one(monkeypatch):
    monkeypatch.setenv("JAM__ACCESS_TOKENS__LIFETIM", "5")
    with pytest.raises(ConfigError) as caught:
        Jam()
    assert "JAM__ACCESS_TOKENS__LIFETIM." in caught.value.message
    assert "JAM__ACCESS_TOKENS__LIFETIME" in caught.value.hint


@pytest.mark.parametrize("option", ["JAM_SESION_IDLE_FOR", "JAM__NAME", "JAM_HTTP"])
def test_an_unknown_flat_name_is_refused(option):
    with pytest.raises(ConfigError, match=option):
        flat_options({option: 1})


@pytest.mark.parametrize(
    "config",
    [
        {"secret": ""},
        {"secret": 5},
        {"secret": ["x"]},
        {"name": ""},
        {"name": 5},
        {"https": "yes"},
        {"https": 1},
        {"debug": 1},
        {"store": 5},
        {"access_tokens": {"lifetime": 0}},
        {"access_tokens": {"lifetime": -1}},
        {"access_tokens": {"lifetime": True}},
        {"access_tokens": {"lifetime": "15 minutes"}},
        {"access_tokens": {"lifetime": "900"}},
        {"access_tokens": {"lifetime": float("inf")}},
        {"access_tokens": {"lifetime": float("nan")}},
        {"access_tokens": {"lifetime": 1e12}},
        {"access_tokens": {"lifetime": False}},
        {"access_tokens": {"lifetime": timedelta(days=-1)}},
        {"access_tokens": {"leeway": float("inf")}},
        {"access_tokens": {"leeway": 301}},
        {"access_tokens": {"leeway": -1}},
        {"access_tokens": {"issuer": ""}},
        {"access_tokens": {"public_keys": "text"}},
        {"access_tokens": 5},
        {"access_tokens": None},
        {"sessions": {"idle_for": 0.5}},
        {"sessions": []},
        {"csrf": {"trusted_origins": ["example.com"]}},
        {"csrf": {"trusted_origins": ["https://example.com/"]}},
        {"csrf": {"trusted_origins": ["*"]}},
        {"csrf": {"trusted_origins": ["null"]}},
        {"csrf": {"trusted_origins": ["https://*.example.com"]}},
        {"csrf": {"trusted_origins": ["HTTPS://EXAMPLE.COM"]}},
        {1: 2},
    ],
)
def test_nonsense_is_refused_by_name(config):
    with pytest.raises(ConfigError) as caught:
        Jam(config)
    ((section, value),) = config.items()
    name = f"{section}.{next(iter(value))}" if isinstance(value, dict) else str(section)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"access_tokens": {"lifetime": 100, "max_lifetime": 50}},
        {"access_tokens": {"lifetime": 90000}},
        {"sessions": {"idle_for": 100, "lifetime": 50}},
    ],
)
def test_options_that_contradict_each_other_are_refused(config):
    with pytest.raises(ConfigError, match="longer than"):
        Jam(config)


@pytest.mark.parametrize("number", ["inf", "nan", "-inf", "1e999", "0", "", "soon", "0x10"])
def test_nonsense_from_the_environment_is_refused(number, monkeypatch):
    monkeypatch.setenv("JAM__ACCESS_TOKENS__LIFETIME", number)
    with pytest.raises(ConfigError, match="JAM__ACCESS_TOKENS__LIFETIME"):
        Jam()


@pytest.mark.parametrize("config", [{"secret": {"hidden-value": 1}}, {"name": ["hidden-value"]}, {"secret": 88888}])
def test_a_complaint_never_repeats_a_value(config):
    with pytest.raises(ConfigError) as caught:
        Jam(config)
    assert "hidden-value" not in str(caught.value)
    assert "88888" not in str(caught.value)


def test_a_secret_does_not_show_itself():
    settings = settings_from(read_options({"secret": STRONG, "access_tokens": {"private_key": "PRIVATE"}}, "jam"))
    assert STRONG not in repr(settings)
    assert "PRIVATE" not in repr(settings)


def test_none_means_not_set():
    assert (
        settings_from(read_options({"secret": None, "https": None, "access_tokens": {"issuer": None}}, "jam")).secret
        is None
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read"),
        ("[jam", "not TOML"),
        ("[other]\nx = 1", "no table"),
        ("jam = 5", "no table"),
        ("[jam]\nx = 1", "no option x"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, text, complaint):
    file = tmp_path / "app.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        Jam(file)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["secret", "name", "sessions", "idle_for", "access_tokens", "lifetime", "x"])
                | st.text(),
                inner,
            )
        ),
        max_leaves=8,
    )
)
def test_no_configuration_raises_anything_but_a_config_error(config):
    if not isinstance(config, dict):
        return
    try:
        Jam(config)
    except ConfigError:
        pass
