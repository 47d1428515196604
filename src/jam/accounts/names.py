"""What people may be called: user names and e-mail addresses, and the keys by which they are looked up.

A name is shown as its owner wrote it (normalised by NFKC) and is found by its *key*: case-folded, so that ``Alice`` and
``alice`` cannot be two people. Letters come from one script, so that a Cyrillic "а" cannot stand in for a Latin one; an
``@`` is in no user name, so that nobody can be called by another one's e-mail address.
"""

from __future__ import annotations

import unicodedata

import msgspec

from jam.errors import ConfigError, EmailRefused, UsernameRefused

__all__ = ["EmailAddress", "email_address", "email_key", "name_key", "username_key", "valid_username"]

MAX_USERNAME = 64  #: characters
MAX_EMAIL = 254  #: characters (RFC 5321 4.5.3.1.3)
_MAX_LOCAL_PART = 64  # characters (RFC 5321 4.5.3.1.1)
_PUNCTUATION = frozenset("._-+")
_MAX_MARKS = 3  # on one letter; more of them only serve to make a mess
# Letters and marks that nobody sees (DerivedCoreProperties.txt: Default_Ignorable_Code_Point).
_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, *range(0xFE00, 0xFE10)))
) | frozenset(map(chr, range(0xE0100, 0xE01F0)))
_DOT_ABOVE = "\u0307"
_DOTTED = frozenset("ijıȷіј")  # another dot above them is drawn in the place of the first
# Scripts that are written together (UTS #39 5.2, "highly restrictive", without Latin among them).
_TOGETHER = (
    frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    frozenset({"CJK", "BOPOMOFO"}),
    frozenset({"CJK", "HANGUL"}),
)


class EmailAddress(msgspec.Struct, frozen=True):
    """An e-mail address.

    Attributes:
        address: As it is shown and written to.
        key: What tells it from others: without regard to case.
    """

    address: str
    key: str


def username_key(name: str) -> str:
    """What a user name is looked up by: NFKC, case-folded, and stable under both (Unicode 3.13, D146)."""
    key = name
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())
        if folded == key:
            break
        key = folded
    return key


def valid_username(name: str) -> str:
    """A user name as it is to be shown.

    Args:
        name: As the person wrote it.

    Returns:
        It, normalised by NFKC.

    Raises:
        UsernameRefused: If nobody may be called so; the message says why.
    """
    if not isinstance(name, str) or not name or len(name) > MAX_USERNAME:
        raise UsernameRefused(f"A user name has 1 to {MAX_USERNAME} characters.")
    shown = unicodedata.normalize("NFKC", name)
    if len(shown) > MAX_USERNAME or len(username_key(shown)) > 2 * MAX_USERNAME:
        raise UsernameRefused(f"A user name has 1 to {MAX_USERNAME} characters.")
    if not (_is_letter(shown[0]) or unicodedata.category(shown[0]) == "Nd"):
        raise UsernameRefused("A user name begins with a letter or digit.")
    marks = 0
    for character in shown:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Mc") else 0
        if marks > _MAX_MARKS:
            raise UsernameRefused("A user name has too many marks on one letter.")
        if not (marks or category == "Nd" or _is_letter(character) or character in _PUNCTUATION):
            raise UsernameRefused("A user name has letters, digits and . _ - + only.")
    _refuse_unseen(shown)
    _refuse_mixed(shown)
    return shown


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] == "L"


def _refuse_unseen(name: str) -> None:
    """Refuse what makes another name of it, and looks the same (UTS #39 5.4)."""
    base = previous = ""
    for character in unicodedata.normalize("NFD", name):
        if character in _UNSEEN:
            raise UsernameRefused("A user name has visible letters only.")
        if unicodedata.category(character) != "Mn":
            base = character
        elif character == previous or (character == _DOT_ABOVE and base in _DOTTED):
            raise UsernameRefused("A user name has no mark twice on one letter.")
        previous = character


def _refuse_mixed(name: str) -> None:
    scripts = {_script(character) for character in name if _is_letter(character)}
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        raise UsernameRefused("A user name has letters of one script only.")
    zeros = {ord(character) - unicodedata.decimal(character) for character in name if character.isdecimal()}
    if len(zeros) > 1:
        raise UsernameRefused("A user name has digits of one kind only.")


def _script(letter: str) -> str:
    """The script of a letter: the first word of its name, as Unicode names letters."""
    word = unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
    return "CJK" if word == "IDEOGRAPHIC" else word  # the mark that repeats a character, as in 佐々木


def email_address(text: str) -> EmailAddress:
    """An e-mail address as it is written to.

    It need not exist: only a mail that comes back with its link shows that.

    Args:
        text: As the person wrote it.

    Raises:
        EmailRefused: If it is none (RFC 5321, RFC 6531 for the domain); the message says why.
        ConfigError: If the package email-validator is missing.
    """
    if not isinstance(text, str) or len(text) > MAX_EMAIL:
        raise EmailRefused(f"An e-mail address has at most {MAX_EMAIL} characters.")
    try:
        from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError(
            "E-mail addresses are checked by the package email-validator, which is missing.",
            hint='Install it: pip install "jam-auth[accounts]"',
        ) from None
    try:
        valid = validate_email(text, check_deliverability=False, allow_smtputf8=False)
    except (EmailNotValidError, ValueError) as error:
        # Its messages speak of the text's form; what the person wrote is quoted in none that we pass on.
        raise EmailRefused("That is not an e-mail address that mail can be sent to.", hint=str(error)) from None
    if len(valid.local_part) > _MAX_LOCAL_PART:
        raise EmailRefused(f"An e-mail address has at most {_MAX_LOCAL_PART} characters before the @.")
    return EmailAddress(valid.normalized, f"{valid.local_part.casefold()}@{(valid.ascii_domain or '').lower()}")


def email_key(text: str) -> str | None:
    """What an e-mail address is looked up by; ``None`` if the text is none."""
    try:
        return email_address(text).key
    except EmailRefused:
        return None


def name_key(text: str) -> str:
    """The key of whatever somebody typed as their name, be it a user name or an e-mail address; for counting."""
    return (email_key(text) if "@" in text else None) or username_key(text[: 4 * MAX_EMAIL])
