"""Mail: what one is, and how it is sent.

A ``Mailer`` sends one mail at a time and says truthfully whether it did: by SMTP (``jam.accounts.smtp``), or, for
development, to the console.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Any, Protocol, TextIO

import msgspec

from jam.config import MailSettings
from jam.errors import InvalidValue, MailNotSent

__all__ = ["ConsoleMailer", "Mail", "Mailer", "check_address", "is_control", "open_mailer"]

# Neither quoted local parts nor address literals: nobody has such an address, and each is read in several ways.
_ADDRESS = re.compile(r"""[^\s<>()\[\],;:\\"@]+@[^\s<>()\[\],;:\\"@]+""")
_MAX_ADDRESS = 254  # RFC 5321 4.5.3.1.3
_MAX_SUBJECT = 255


class Mail(msgspec.Struct, frozen=True):
    """One mail to one person. Its ``repr`` shows nothing of the text, which holds links that are secrets.

    Attributes:
        to: An e-mail address, without a name.
        subject: One line.
        text: The mail as plain text.
        html: The same as HTML, if there is one.

    Raises:
        InvalidValue: If the address is none, the subject is no single line, or something is not valid Unicode.
    """

    to: str
    subject: str
    text: str
    html: str | None = None

    def __post_init__(self) -> None:
        check_address(self.to)
        if len(self.subject) > _MAX_SUBJECT or any(map(is_control, self.subject)):
            raise InvalidValue(f"A mail's subject is one line of at most {_MAX_SUBJECT} characters.")
        try:
            (self.text + (self.html or "")).encode()
        except UnicodeEncodeError:
            raise InvalidValue("A mail's text must be valid Unicode.") from None

    def __repr__(self) -> str:
        return f"Mail(to={self.to!r}, subject={self.subject!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # what some loggers show instead of repr
        return [("to", self.to), ("subject", self.subject)]


class Mailer(Protocol):
    """Whoever can send a mail: safe to use from many threads and after a fork."""

    def send(self, mail: Mail) -> None:
        """Send it now; when this returns, somebody else has taken charge of it.

        Raises:
            MailNotSent: If that is not sure.
        """
        ...


def check_address(address: str) -> None:
    """Refuse what cannot stand in a mail's header or in an SMTP command as exactly one address (RFC 5322 3.4.1).

    Raises:
        InvalidValue: Without repeating it.
    """
    good = (
        isinstance(address, str)
        and len(address) <= _MAX_ADDRESS
        and address.isprintable()
        and _ADDRESS.fullmatch(address) is not None
    )
    if not good:
        raise InvalidValue("A mail goes to one e-mail address.")


class ConsoleMailer:
    """Prints mails instead of sending them: for development.

    Args:
        stream: Where to; ``sys.stderr``, as it is at the time, if left out.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def send(self, mail: Mail) -> None:
        """Print it, with whatever could steer a terminal made visible.

        Raises:
            MailNotSent: If the stream does not take it.
        """
        stream = sys.stderr if self._stream is None else self._stream
        rule = "-" * 72
        text = f"{rule}\nTo: {mail.to}\nSubject: {mail.subject}\n\n{mail.text.rstrip()}\n{rule}\n"
        try:
            stream.write("".join(_visible(character) for character in text))
            stream.flush()
        except (OSError, ValueError, AttributeError) as error:  # full, closed, of another encoding, or none at all
            raise MailNotSent(hint=f"The console did not take it: {type(error).__name__}.") from None


def open_mailer(settings: MailSettings) -> Mailer | None:
    """The mailer that the settings lead to; ``None`` if they name none. Nothing is connected yet.

    Args:
        settings: ``mail``. The URL is ``smtp://user:password@host:587`` (STARTTLS, which the server must offer),
            ``smtps://user:password@host:465`` (TLS from the first byte), ``smtp://127.0.0.1:1025?tls=none`` for a
            server on this machine, or ``console://``.

    Raises:
        ConfigError: If the URL or the sender cannot be what they are. Nothing of the URL is repeated: there is a
            password in it.
    """
    if settings.url is None:
        return None
    if settings.url.value == b"console://":
        return ConsoleMailer()
    from jam.accounts.smtp import SMTPMailer  # noqa: PLC0415 - it is not imported if it is not used

    return SMTPMailer.from_settings(settings)


def is_control(character: str) -> bool:
    """Whether a character could end a line or steer a terminal; or is none, but half of one."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode()
