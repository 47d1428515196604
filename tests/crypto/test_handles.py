"""Handles: what a client holds of a record, and the little the store keeps of it."""

import base64
import hashlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam.crypto.handles import ID, bucket_of, bucket_of_id, id_for, matches, new_handle, new_id, split_handle

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
