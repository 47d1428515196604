import sys
import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jam.accounts.names import (
    MAX_EMAIL,
    MAX_USERNAME,
    email_address,
    email_key,
    name_key,
    username_key,
    valid_username,
)
from jam.errors import ConfigError, EmailRefused, UsernameRefused

MANY = settings(max_examples=400, deadline=None)
letters_and_marks = st.text(
    st.characters(categories=("L", "M", "Nd"), include_characters="._-+"), min_size=1, max_size=70
)


def is_refused(name):
    with pytest.raises(UsernameRefused) as caught:
        valid_username(name)
    return caught.value.message


# -- user names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "alice", "Alice", "a", "7", "alice.b_c-d+e", "x" * 64, "René", "Straße", "Ελένη", "Владимир", "محمد", "דוד", "हिन्दी", "தமிழ்",
    "สมชาย", "김민준", "佐々木", "たなか", "タナカ", "山田たろう", "サトー", "王小明", "Nguyễn", "İstanbul", "ılgın", "ქართული", "Ἀθηνᾶ", "নাম",
])  # fmt: skip
def test_people_may_be_called_so(name):
    assert valid_username(name) == unicodedata.normalize("NFKC", name)


@pytest.mark.parametrize("name", [
    "", "x" * 65, " alice", "alice ", "al ice", "alice\n", "alice\0", "alice\t", ".alice", "-alice", "_", "+", "a@b", "alice@example.com",
    "a\uff20b", "a/b", "a\\b", "a'b", 'a"b', "<b>", "a;b", "a:b", "a%00", "a,b", "a#", "a?", "a&b", "a=b", "🙂", "a🙂", "\ud800", "a\udfff",
    "\ufeffalice", "al\u200bice", "al\u200dice", "al\u00adice", "al\u2060ice", "\u202eecila", "ali\u2028ce", "a\u0007", "\ue000",
    "\u0301a", "a\u0301\u0302\u0303\u0304\u0305", "\ufdfa" * 60, None, 7, b"alice", ["alice"], True,
], ids=ascii)  # fmt: skip
def test_nobody_may_be_called_so(name):
    assert is_refused(name).startswith("A user name")


@pytest.mark.parametrize("name", [
    "аlice", "aliсe", "раypal", "αlice", "ɑliϲe"[:4] + "ϲ", "aliсе", "Ꭺlice", "alice王", "aあ", "aא", "あ김", "김ᄀア", "aاب", "aʼb",
], ids=ascii)  # fmt: skip
def test_letters_of_several_scripts_are_refused(name):
    assert is_refused(name) == "A user name has letters of one script only."


@pytest.mark.parametrize("name", ["a1٢", "1१", "a٠0", "๑1"], ids=ascii)
def test_digits_of_several_kinds_are_refused(name):
    assert is_refused(name) == "A user name has digits of one kind only."


@pytest.mark.parametrize("name", ["Ａｌｉｃｅ", "𝐀𝐥𝐢𝐜𝐞", "Ⓐⓛⓘⓒⓔ", "𝔄𝔩𝔦𝔠𝔢", "ᴬlice", "Alⅰcⅇ"], ids=ascii)
def test_letters_in_fancy_dress_are_the_letters_themselves(name):
    assert valid_username(name) == "Alice"


# What Unicode calls Default_Ignorable_Code_Point, and letters or marks: nobody sees them.
UNSEEN = [
    0x034F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x180B,
    0x180C,
    0x180D,
    0x180F,
    0x3164,
    0xFE00,
    0xFE0F,
    0xFFA0,
    0xE0100,
    0xE01EF,
]


@pytest.mark.parametrize("unseen", UNSEEN, ids=hex)
def test_what_nobody_can_see_is_in_no_name(unseen):
    for name in (chr(unseen), "alice" + chr(unseen), "al" + chr(unseen) + "ice", "김" + chr(unseen), "ក" + chr(unseen)):
        is_refused(name)


@pytest.mark.parametrize(
    "name",
    ["ali\u0307ce", "j\u0307im", "al\u0131\u0307ce", "\u0456\u0307", "\u0458\u0307", "\u0237\u0307", "i\u0323\u0307"],
    ids=ascii,
)
def test_a_second_dot_on_an_i_is_refused_because_nobody_can_see_it(name):
    is_refused(name)


@pytest.mark.parametrize("name", ["a\u0301\u0301", "á\u0301", "e\u0323\u0323", "o\u0308\u0308"], ids=ascii)
def test_the_same_mark_twice_on_a_letter_is_refused(name):
    is_refused(name)


@given(name=st.text(max_size=80) | letters_and_marks)
@MANY
def test_any_text_is_a_name_or_refused(name):
    try:
        shown = valid_username(name)
    except UsernameRefused:
        return
    assert valid_username(shown) == shown == unicodedata.normalize("NFKC", name)
    assert 1 <= len(shown) <= MAX_USERNAME
    assert len(username_key(shown)) <= 2 * MAX_USERNAME
    assert "@" not in username_key(shown)
    assert not any(unicodedata.category(character)[0] in "ZCPS" for character in shown if character not in "._-+")
    shown.encode()


@given(name=st.text(max_size=40) | letters_and_marks)
@MANY
@example("\u0345\u0301α")
@example("ᾳ\u0345")
@example("İ")
@example("ẞ\u0345\u0345")
def test_a_key_is_the_same_however_the_name_is_written(name):
    key = username_key(name)
    assert username_key(key) == key
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert username_key(unicodedata.normalize(form, name)) == key
    assert username_key(unicodedata.normalize("NFD", name).casefold()) == key


def test_every_letter_has_a_key_that_is_its_own_key():
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        if unicodedata.category(letter)[0] in "LMN":
            key = username_key(letter)
            assert username_key(key) == key == username_key(letter.casefold()), ascii(letter)


@given(name=letters_and_marks)
@MANY
def test_the_key_of_a_name_is_that_of_how_it_is_shown(name):
    try:
        shown = valid_username(name)
    except UsernameRefused:
        assume(False)
    assert username_key(shown) == username_key(name)


@pytest.mark.parametrize(("one", "other"), [
    ("Alice", "aLICE"), ("straße", "STRASSE"), ("\u212aelvin", "kelvin"), ("ﬁn", "FIN"), ("σίσυφος", "ΣΊΣΥΦΟΣ"), ("ａ", "A"), ("Ⅷ", "viii"),
    ("é", "e\u0301"), ("İ", "i\u0307"), ("ſ", "S"), ("Ꭰ", "ꭰ"), ("ა", "Ა"),
], ids=ascii)  # fmt: skip
def test_names_that_fold_into_one_have_one_key(one, other):
    assert username_key(one) == username_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("i", "ı"), ("I", "İ"), ("a", "á"), ("a", "а"), ("o", "0"), ("l", "1"), ("a.b", "ab"), ("ss", "s")],
    ids=ascii,
)
def test_names_that_are_written_differently_have_different_keys(one, other):
    assert username_key(one) != username_key(other)


# -- e-mail addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "address", "key"), [
    ("alice@example.com", "alice@example.com", "alice@example.com"),
    ("Alice@Example.COM", "Alice@example.com", "alice@example.com"),
    ("a.b+c_d-e@sub.example.co.uk", "a.b+c_d-e@sub.example.co.uk", "a.b+c_d-e@sub.example.co.uk"),
    ("a@müller.de", "a@müller.de", "a@xn--mller-kva.de"),
    ("a@MÜLLER.de", "a@müller.de", "a@xn--mller-kva.de"),
    ("a@mu\u0308ller.de", "a@müller.de", "a@xn--mller-kva.de"),
    ("a@xn--mller-kva.de", "a@müller.de", "a@xn--mller-kva.de"),
    ("a@ｅxample.com", "a@example.com", "a@example.com"),
    ("a@example。com", "a@example.com", "a@example.com"),
], ids=ascii)  # fmt: skip
def test_an_address_has_one_form_to_write_to_and_one_key(text, address, key):
    assert (email_address(text).address, email_address(text).key) == (address, key)
    assert email_key(text) == name_key(text) == key


@pytest.mark.parametrize("text", [
    "", "@", "alice", "alice@", "@example.com", "a@b", "a@localhost", "a b@example.com", "a@exa mple.com", "a@@example.com", "a@example..com",
    ".a@example.com", "a.@example.com", "a..b@example.com", "a@-example.com", "a@example.com.", "a@[127.0.0.1]", "a@127.0.0.1", '"a b"@example.com',
    "Alice <a@example.com>", "a@example.com,b@example.com", "a@example.com\nBcc: b@example.com", "a@example.com\r\n", "a\0@example.com", " a@example.com",
    "a@example.com ", "é@example.com", "a@example.com\0", "\ud800@example.com", "a@\ud800.com", "a@" + "x" * 64 + ".com", "x" * 65 + "@example.com",
    "a@" + "x." * 130 + "com", "x" * 300, "a@xn--a", "a@\u202eexample.com", "a@exam\u200dple.com", "a(c)@example.com", "mailto:a@example.com", None, 7, b"a@b.com", ["a@b.com"],
], ids=ascii)  # fmt: skip
def test_what_no_mail_is_sent_to_is_refused(text):
    with pytest.raises(EmailRefused):
        email_address(text)


@pytest.mark.parametrize("text", ["mike@example.com", "MIKE@example.com"])
def test_a_letter_that_only_folds_into_another_is_no_way_to_somebody_elses_mail(text):
    """The Kelvin sign and the dotless i fold, or are upper-cased, into ASCII letters."""
    for other in ("mi\u212ae@example.com", "m\u0131ke@example.com", "mike@examp\u0131e.com"):
        assert email_key(other) != email_key(text)


@given(text=st.text(max_size=300) | st.emails() | st.tuples(st.text(max_size=70), st.text(max_size=70)).map("@".join))
@MANY
def test_any_text_is_an_address_or_refused(text):
    try:
        found = email_address(text)
    except EmailRefused:
        return
    assert email_address(found.address) == found
    assert email_key(found.key) == found.key
    assert found.address.count("@") == found.key.count("@") == 1
    assert found.key.isascii()
    assert len(found.address) <= MAX_EMAIL
    assert len(found.key) <= 320
    assert not any(unicodedata.category(character)[0] in "ZC" for character in found.address)


@given(text=st.text(max_size=3000) | st.emails())
@MANY
def test_whatever_is_typed_has_a_key_to_count_by(text):
    key = name_key(text)
    assert isinstance(key, str)
    if "@" not in text:
        assert key == username_key(text[:1016])


def test_a_key_to_count_by_takes_no_long_time_for_a_long_text():
    assert len(name_key("\ufdfa" * 1_000_000)) < 100_000


def test_without_the_package_the_mistake_has_a_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "email_validator", None)
    with pytest.raises(ConfigError) as caught:
        email_address("a@example.com")
    assert "jam-auth[accounts]" in caught.value.hint
