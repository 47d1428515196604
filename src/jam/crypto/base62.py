"""Base62: numbers in the digits ``0-9A-Za-z`` and nothing else, so that a double click selects the whole word.

Every number has one spelling of a given width: zeros on the left, no sign, no other digit.
"""

from __future__ import annotations

__all__ = ["base62_decode", "base62_encode"]

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE = len(_DIGITS)
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}


def base62_encode(number: int, width: int) -> str:
    """The number in exactly ``width`` digits.

    Raises:
        ValueError: If it is negative or needs more digits.
    """
    if not 0 <= number < _BASE**width:
        raise ValueError("the number does not fit")
    digits = []
    for _ in range(width):
        number, value = divmod(number, _BASE)
        digits.append(_DIGITS[value])
    return "".join(reversed(digits))


def base62_decode(text: str) -> int:
    """The number that a text of digits spells. Check the length before: the time grows with its square.

    Raises:
        ValueError: For an empty text, or one with any other character in it.
    """
    if not text:
        raise ValueError("no digits")
    number = 0
    for digit in text:
        value = _VALUES.get(digit)
        if value is None:
            raise ValueError("not a base62 digit")
        number = number * _BASE + value
    return number
