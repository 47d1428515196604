"""Handles: what a client holds of a record, and the little the store keeps of it."""

import base64
import hashlib
import re
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.handles import (
    ID,
    bucket_of,
    bucket_of_id,
    id_for,
    matches,
    new_api_token,
    new_handle,
    new_id,
    split_api_token,
    split_handle,
)

subjects = st.text(min_size=1, max_size=40)


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def varying_bits(samples):
    """How many bits took both values among byte strings of one length."""
    numbers = [int.from_bytes(sample, "big") for sample in samples]
    ones, zeros = 0, 0
    for number in numbers:
        ones |= number
        zeros |= ~number
    return (ones & zeros & ((1 << 8 * len(samples[0])) - 1)).bit_count()


def test_a_handle_is_an_id_and_a_secret():
    handle, record_id, _ = new_handle(bucket_of("alice"))
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}\.[A-Za-z0-9_-]{43}", handle)
    assert handle.startswith(record_id + ".")
    assert ID.fullmatch(record_id)


def test_a_handle_splits_into_the_id_and_check_it_was_made_with():
    handle, record_id, check = new_handle(bucket_of("alice"))
    assert split_handle(handle) == (record_id, check)


def test_asvs_6_5_2_the_check_is_the_sha_256_of_the_secret_and_tells_nothing_of_it():
    handle, _, check = new_handle(bucket_of("alice"))
    secret = handle.partition(".")[2]
    assert check == hashlib.sha256(secret.encode()).digest()


def test_asvs_7_2_3_a_secret_has_256_random_bits():
    secrets = [decode(new_handle(b"\0\0")[0].partition(".")[2]) for _ in range(300)]
    assert {len(secret) for secret in secrets} == {32}
    assert varying_bits(secrets) == 256


def test_asvs_11_5_1_an_id_has_128_random_bits_none_of_them_fixed_as_in_a_uuid():
    ids = [decode(new_id("alice")) for _ in range(300)]
    assert {len(data) for data in ids} == {18}
    assert varying_bits([data[2:] for data in ids]) == 128


def test_asvs_7_2_2_no_two_handles_are_alike():
    handles = [new_handle(bucket_of("alice")) for _ in range(2000)]
    assert len({handle for handle, _, _ in handles}) == 2000
    assert len({record_id for _, record_id, _ in handles}) == 2000
    assert len({check for _, _, check in handles}) == 2000


@given(subjects)
@settings(deadline=None)
def test_all_ids_of_a_subject_lie_in_its_bucket(subject):
    bucket = bucket_of(subject)
    assert len(bucket) == 2
    assert bucket_of_id(new_id(subject)) == bucket
    assert bucket_of_id(id_for(subject, "name")) == bucket
    assert bucket_of_id(new_handle(bucket)[1]) == bucket


def test_subjects_are_spread_over_the_buckets():
    assert len({bucket_of(f"user-{n}") for n in range(1000)}) > 950


def test_anonymous_records_are_spread_over_the_buckets():
    assert len({bucket_of("") for _ in range(1000)}) > 950


@given(subjects, st.text(max_size=300))
@settings(deadline=None)
def test_the_id_for_a_name_is_always_the_same_and_has_the_form_of_an_id(subject, name):
    assert id_for(subject, name) == id_for(subject, name)
    assert ID.fullmatch(id_for(subject, name))


def test_the_ids_for_different_names_or_subjects_differ():
    ids = {id_for(subject, name) for subject in ("", "alice", "bob") for name in ("", "a", "b", "A", "a ", "ab")}
    assert len(ids) == 18


def test_the_id_for_a_name_of_nobody_is_always_the_same_too():
    assert id_for("", "token") == id_for("", "token")


HANDLE = "A" * 24 + "." + "B" * 43


def test_the_form_alone_makes_a_handle():
    assert split_handle(HANDLE) is not None


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "A" * 24, "B" * 43, "A" * 24 + ".", "." + "B" * 43, "A" * 23 + "." + "B" * 43, "A" * 25 + "." + "B" * 43,
        "A" * 24 + "." + "B" * 42, "A" * 24 + "." + "B" * 44, "A" * 24 + ".." + "B" * 43, HANDLE + ".", "." + HANDLE,
        HANDLE + "\n", "\n" + HANDLE, HANDLE + " ", " " + HANDLE, HANDLE + "\0", HANDLE + "=", HANDLE.replace(".", ":"),
        HANDLE.replace("A", "+", 1), HANDLE.replace("B", "/", 1), HANDLE.replace("A", "é", 1), HANDLE.replace("B", "é", 1),
        HANDLE.replace("B", "\ud800", 1), "A" * 24 + "\n." + "B" * 43, HANDLE + "." + HANDLE, f'"{HANDLE}"',
        "../../../../../etc/passwd", "' OR 1=1 --", HANDLE * 20_000,
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_handle_is_none(text):
    assert split_handle(text) is None


@given(st.text(st.characters(), max_size=80))
@settings(deadline=None)
def test_hostile_text_is_no_handle(text):
    assert split_handle(text) is None


@given(st.integers(0, 66), st.characters())
@settings(deadline=None)
def test_a_changed_character_gives_no_handle_or_another_one(position, character):
    handle, record_id, check = new_handle(bucket_of("alice"))
    position += position >= 24  # the dot is not an alphabet's character
    changed = handle[:position] + character + handle[position + 1 :]
    if changed != handle:
        assert split_handle(changed) != (record_id, check)


def test_every_other_spelling_of_a_secrets_bits_is_another_secret():
    handle, _, check = new_handle(bucket_of("alice"))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    checks = {split_handle(handle[:-1] + last)[1] for last in alphabet}
    assert len(checks) == 64
    assert check in checks


def test_asvs_11_2_4_equal_checks_match_and_others_do_not():
    _, _, check = new_handle(bucket_of("alice"))
    assert matches(check, bytes(check))
    assert not matches(check, bytes(32))
    assert not matches(check, check[:-1])
    assert not matches(check, check + b"\0")
    assert not matches(check, check[:-1] + bytes([check[-1] ^ 1]))


def test_a_record_without_a_check_matches_no_presented_secret():
    _, presented = split_handle(HANDLE)
    assert not matches(b"", presented)


# -- API tokens ---------------------------------------------------------------------------------------------

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MAX_ID, MAX_SECRET = 256**18 - 1, 256**32 - 1


def spelled(number, width):
    text = ""
    for _ in range(width):
        text = DIGITS[number % 62] + text
        number //= 62
    return text


def number_of(text):
    return sum(DIGITS.index(digit) * 62**place for place, digit in enumerate(reversed(text)))


def api_token(id_number, secret_number, prefix="jam_"):
    """An API token with those numbers in it, and the right checksum."""
    text = f"{prefix}{spelled(id_number, 25)}_{spelled(secret_number, 43)}"
    return text + spelled(zlib.crc32(text.encode()), 6)


def test_an_api_token_is_a_prefix_an_id_a_secret_and_a_checksum_of_79_plain_characters():
    token, record_id, check = new_api_token(bucket_of("alice"))
    name, secret, checksum = re.fullmatch(r"jam_([0-9A-Za-z]{25})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", token).groups()
    assert len(token) == 79
    assert number_of(name).to_bytes(18, "big") == decode(record_id)
    assert number_of(checksum) == zlib.crc32(token[:-6].encode())
    assert check == hashlib.sha256(secret.encode()).digest()
    assert ID.fullmatch(record_id)
    assert bucket_of_id(record_id) == bucket_of("alice")


def test_an_api_token_splits_into_the_id_and_check_it_was_made_with():
    token, record_id, check = new_api_token(bucket_of("alice"))
    assert split_api_token(token) == (record_id, check)


def test_asvs_11_5_1_an_api_tokens_id_has_128_random_bits_and_its_secret_256():
    tokens = [new_api_token(bucket_of("alice")) for _ in range(300)]
    assert varying_bits([decode(record_id)[2:] for _, record_id, _ in tokens]) == 128
    assert varying_bits([number_of(token[30:73]).to_bytes(32, "big") for token, _, _ in tokens]) == 256
    assert len({check for _, _, check in tokens}) == 300


@given(st.integers(0, MAX_ID), st.integers(0, MAX_SECRET))
@settings(deadline=None)
def test_every_id_and_every_secret_can_be_in_an_api_token(id_number, secret_number):
    record_id, check = split_api_token(api_token(id_number, secret_number))
    assert decode(record_id) == id_number.to_bytes(18, "big")
    assert check == hashlib.sha256(spelled(secret_number, 43).encode()).digest()


def test_the_smallest_and_the_largest_numbers_are_in_range():
    assert split_api_token(api_token(0, 0))[0] == "A" * 24
    assert split_api_token(api_token(MAX_ID, MAX_SECRET))[0] == "_" * 24


@given(st.integers(MAX_ID + 1, 62**25 - 1), st.integers(MAX_SECRET + 1, 62**43 - 1))
@settings(deadline=None)
def test_a_number_that_is_too_large_is_no_second_spelling_of_another(id_number, secret_number):
    assert split_api_token(api_token(id_number, 0)) is None
    assert split_api_token(api_token(0, secret_number)) is None


@pytest.mark.parametrize("numbers", [(MAX_ID + 1, 0), (0, MAX_SECRET + 1), (62**25 - 1, 62**43 - 1)])
def test_one_above_the_largest_number_is_out_of_range(numbers):
    assert split_api_token(api_token(*numbers)) is None


@given(st.integers(0, 78), st.characters())
@settings(deadline=None, max_examples=300)
def test_a_changed_character_gives_no_api_token(position, character):
    token = api_token(7, 11)
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        assert split_api_token(changed) is None


@given(st.integers(0, 77))
@settings(deadline=None)
def test_neighbours_that_changed_places_give_no_api_token(position):
    token, _, _ = new_api_token(bucket_of("alice"))
    changed = token[:position] + token[position + 1] + token[position] + token[position + 2 :]
    if changed != token:
        assert split_api_token(changed) is None


@pytest.mark.parametrize("prefix", ["", "jam", "JAM_", "Jam_", "jam-", "ghp_", "xjam_", "jam__", " jam_", "jam_jam_"])
def test_an_api_token_has_this_prefix_and_no_other(prefix):
    assert split_api_token(api_token(1, 2)) is not None
    assert split_api_token(api_token(1, 2, prefix)) is None


@pytest.mark.parametrize("character", ["_", "-", ".", "+", " ", "\n", "\0", "é", "\u0661", "\uff21"], ids=ascii)
@pytest.mark.parametrize("position", [4, 28, 30, 72])
def test_another_character_gives_no_api_token_even_under_a_right_checksum(character, position):
    token = api_token(1, 2)
    text = token[:position] + character + token[position + 1 : -6]
    assert split_api_token(text + spelled(zlib.crc32(text.encode()), 6)) is None


@given(st.text(st.characters(), max_size=100))
@settings(deadline=None)
def test_hostile_text_is_no_api_token(text):
    assert split_api_token(text) is None
    assert split_api_token("jam_" + text) is None
