"""Which passwords people may have (NIST SP 800-63B-4 3.1.1.2; ASVS 6.2): long ones, that nobody guesses.

No rule asks for kinds of characters (ASVS 6.2.5). What is refused is what an attacker tries first: common passwords and
what is made of them by common rules, words that belong to the service or the person, and what is known from breaches.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Callable, Iterable

from jam.config import PasswordSettings
from jam.crypto.passwords import normalized
from jam.errors import ConfigError, InvalidValue, JamError, PasswordRefused
from jam.events import BreachCheckFailed, Events

__all__ = ["PasswordPolicy"]

logger = logging.getLogger("jam.accounts.password_policy")

# How many guesses an attacker needs at least, as zxcvbn reckons. The longer a password has to be, the more people
# fill it up with what they know.
_MIN_GUESSES = 10**6
_MIN_GUESSES_WHEN_LONG = 10**9
_LONG = 15
# As much as zxcvbn takes. It grows with the square of the length, and with every way of reading 4, @, $, 1 and the
# like as letters: some seconds where all of them come together, which this keeps to some hundredths.
_JUDGED = 72
_MAX_READINGS = 40_000

_MIN_NAME = 4  # shorter ones are in too many words
_MIN_CONTEXT_WORD = 2
_MAX_NAME = 255

_LEET = ("a4@", "b8", "c([{<", "e3", "g69", "i1!|", "l1|7", "o0", "s5$", "t7+", "x%", "z2")
_LOOKALIKES = {
    char: "".join({other for group in _LEET if char in group for other in group})
    for char in {char for group in _LEET for char in group}
}
# What is on the same keys of the commonest keyboard: !QAZ@WSX is 1qaz2wsx, with a finger on the shift key.
_UNSHIFTED = str.maketrans('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./")


class PasswordPolicy:
    """Says no to a new password, and why. Passwords that people have already are never asked about.

    Args:
        settings: How long a password is, and what words it must not contain.
        app_name: The app's name, which belongs to those words if it has four or more characters.
        breached: Whether a password is known from a breach, such as ``PwnedPasswords()``; it may raise anything.
        refuse_when_unknown: Refuse a password if ``breached`` cannot tell. Left out, it is accepted, after an event
            and a warning in the log: otherwise that service's trouble would be this one's.
        clock: Seconds since the epoch.
        events: Hears of ``BreachCheckFailed``.

    Raises:
        ConfigError: If a context word is too short, or zxcvbn is not installed.
    """

    def __init__(
        self,
        settings: PasswordSettings,
        *,
        app_name: str = "",
        breached: Callable[[str], bool] | None = None,
        refuse_when_unknown: bool = False,
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._min_length = settings.min_length
        self._max_length = settings.max_length
        self._breached = breached
        self._refuse_when_unknown = refuse_when_unknown
        self._clock = clock
        self._events = events
        words = tuple(_folded(word.strip()) for word in settings.context_words)
        if any(len(word) < _MIN_CONTEXT_WORD for word in words):
            raise ConfigError(
                f"passwords.context_words holds a word of less than {_MIN_CONTEXT_WORD} characters.",
                hint="A word that short is in nearly every password.",
            )
        self._context = tuple(map(_pattern, (*words, *_names(app_name))))
        self._guesses = _estimator()

    def check(
        self, password: str, *, username: str | None = None, email: str | None = None, subject: str | None = None
    ) -> None:
        """Accept a new password by returning.

        Args:
            password: As the person typed it.
            username: Under what name they sign in.
            email: Their address.
            subject: Whose it will be, for the event; ``None`` if there is no account yet.

        Raises:
            PasswordRefused: If it is not acceptable: the message says why, and what to do.
        """
        text = self._checked_text(password)
        self._check_context(text, username or "", email or "")
        if self._is_common(text):
            raise PasswordRefused(
                "The password is easy to guess: it is common, or made of common words and patterns. "
                "Use several words that have nothing to do with each other."
            )
        self._check_breaches(text, subject)

    def _checked_text(self, password: str) -> str:
        """The password in NFC, of which the characters are counted, each code point as one (ASVS 6.2.1)."""
        try:
            text = normalized(password, self._max_length)
        except InvalidValue as error:
            raise PasswordRefused(error.message) from None
        if len(text) < self._min_length:
            raise PasswordRefused(f"The password is too short: use at least {self._min_length} characters.")
        categories = set(map(unicodedata.category, text))
        if "Cc" in categories:
            raise PasswordRefused(
                "The password holds a control character, such as a tab or a line break: leave it out."
            )
        if all(category[0] in "ZC" for category in categories):
            raise PasswordRefused("The password is blank: use characters that can be seen.")
        return text

    def _check_context(self, text: str, username: str, email: str) -> None:
        folded = _folded(text)
        local_part, _, domain = email.rpartition("@")
        labels = domain.split(".")
        for patterns, what in (
            (self._context, "a word that belongs to this service"),
            (map(_pattern, _names(username)), "your user name"),
            (map(_pattern, _names(local_part, local_part.partition("+")[0])), "a part of your e-mail address"),
            # the last label is everybody's
            (map(_pattern, _names(*labels[: max(1, len(labels) - 1)])), "a part of your e-mail address"),
        ):
            if any(pattern.search(folded) for pattern in patterns):
                raise PasswordRefused(f"The password contains {what}: use one without it.")

    def _is_common(self, text: str) -> bool:
        """Whether an attacker comes to it soon. A password is at least as hard to guess as its beginning is."""
        judged = text[:_JUDGED]
        spellings = {judged.translate(_UNSHIFTED).lower()[:_JUDGED]}  # some letters grow by it
        if _readings(judged) * len(judged) ** 2 <= _MAX_READINGS:
            spellings.add(judged)
        least = _MIN_GUESSES_WHEN_LONG if len(text) >= _LONG else _MIN_GUESSES
        return min(map(self._guesses, spellings)) < least

    def _check_breaches(self, text: str, subject: str | None) -> None:
        if self._breached is None:
            return
        try:
            known = self._breached(text)
        except Exception as error:  # noqa: BLE001 - whatever the app's own function raises, with whatever text
            hint = error.hint if isinstance(error, JamError) else ""
            logger.warning("A password could not be checked against breaches: %s. %s", type(error).__name__, hint)
            if self._events:
                self._events.emit(BreachCheckFailed(at=self._clock(), subject=subject))
            if self._refuse_when_unknown:
                raise PasswordRefused(
                    "The password could not be checked against known data breaches: try again later."
                ) from None
            return
        if known:
            raise PasswordRefused("The password is known from a data breach: use one that you use nowhere else.")


def _folded(text: str) -> str:
    """What is the same to a reader, whatever its case and width."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _names(*names: str) -> Iterable[str]:
    """Those that are long enough to be told from other words; no name is longer than a column for it."""
    return [name for name in (_folded(name) for name in names if len(name) <= _MAX_NAME) if len(name) >= _MIN_NAME]


def _pattern(word: str) -> re.Pattern[str]:
    """Finds the word, its letters also written as the digits and signs that look like them."""
    return re.compile("".join(f"[{re.escape(_LOOKALIKES.get(char, char))}]" for char in word))


def _readings(text: str) -> int:
    """In how many ways its digits and signs can be read as letters."""
    return math.prod(max(1, sum(sign in text for sign in group[1:])) for group in _LEET)


def _estimator() -> Callable[[str], int]:
    """How many guesses a text of at most 72 characters takes.

    Raises:
        ConfigError: If zxcvbn is not installed.
    """
    try:
        from zxcvbn import zxcvbn  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, with long lists
    except ImportError:
        raise ConfigError("zxcvbn is not installed.", hint="pip install jam-auth[accounts]") from None

    def guesses(text: str) -> int:
        # Never with words of the person's: zxcvbn keeps them where other threads would find them.
        return int(zxcvbn(text)["guesses"])

    return guesses
