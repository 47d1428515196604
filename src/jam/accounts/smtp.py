"""Mail by SMTP (RFC 5321).

Mails hold links that are as good as a password, so they leave by verified TLS or not at all; only to this machine
itself they may go without.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import smtplib
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses, make_msgid
from typing import Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from jam.accounts.mail import Mail, check_address, is_control
from jam.config import MailSettings
from jam.errors import ConfigError, MailNotSent
from jam.stores.forks import Gate, around_forks

__all__ = ["SMTPMailer"]

TLS = Literal["starttls", "implicit", "none"]

_POLICY = policy.SMTP.clone(cte_type="7bit")  # 8-bit text passes only servers that say so
_ENHANCED_CODE = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}")
_PORTS = {"smtp": 587, "smtps": 465}
_REFUSED = {
    smtplib.SMTPDataError: "the mail",
    smtplib.SMTPAuthenticationError: "user name and password of mail.url",
    smtplib.SMTPSenderRefused: "mail.sender",
}
_URL_HINT = (
    "Write mail.url as smtp://user:password@host:587 or smtps://user:password@host:465, with every special character "
    "of user and password percent-encoded; or console:// to print mails."
)


class SMTPMailer:
    """Sends by SMTP (RFC 5321), every mail over a connection of its own.

    Args:
        host: Of the server; its certificate must be for this name.
        port: Of the server.
        username: To sign in with, if the server wants that; ASCII.
        password: Likewise.
        sender: Who the mails are from, such as ``Jam <no-reply@app.example>``.
        tls: ``starttls`` (RFC 3207; a server that does not offer it gets nothing), ``implicit`` (RFC 8314 3.3), or
            ``none``, which only this machine itself may have.
        timeout: For how long one mail may take in all, the look-up of the host's name aside, in seconds.
        context: Whose certificates to trust instead of the system's authorities.

    Raises:
        ConfigError: If that cannot be, or would send secrets over a network in the clear.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None = None,
        password: str | None = None,
        sender: str,
        tls: TLS = "starttls",
        timeout: float = 10.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if tls not in ("starttls", "implicit", "none"):
            raise ConfigError("A mail server is spoken to with starttls, implicit or none as its tls.")
        if tls == "none" and not _is_loopback(host):
            raise ConfigError(
                "Mail may go without TLS to this machine alone.",
                hint="Mails hold links that are as good as a password. Leave tls=none out of mail.url, use smtps://, "
                "or run a relay on 127.0.0.1.",
            )
        if (username is None) != (password is None):
            raise ConfigError("A mail server is given both a user name and a password, or neither.")
        for credential in (username, password):
            if credential is not None and not (credential and credential.isascii() and credential.isprintable()):
                raise ConfigError("User name and password of a mail server are printable ASCII, and not empty.")
        self._sender = _sender(sender)
        self._host, self._port = host, port
        self._username, self._password = username, password
        self._tls = tls
        self._timeout = timeout
        self._context = (context or ssl.create_default_context()) if tls != "none" else None
        self._gate = Gate()
        _all_mailers.add(self)

    @classmethod
    def from_settings(cls, settings: MailSettings) -> Self:
        """The mailer of ``mail.url``; see ``jam.accounts.mail.open_mailer``.

        Raises:
            ConfigError: If the URL or the sender cannot be what they are. Nothing of the URL is repeated.
        """
        try:
            url = "" if settings.url is None else settings.url.value.decode()
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
            username, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
        except ValueError:
            raise ConfigError("mail.url is no URL.", hint=_URL_HINT) from None
        plain = url.isprintable() and " " not in url and parts.path in ("", "/") and not parts.fragment
        if parts.scheme not in _PORTS or not host or not plain or port == 0:
            raise ConfigError("mail.url is not the URL of a mail server.", hint=_URL_HINT)
        if settings.sender is None:
            raise ConfigError(
                "mail.sender is not set.", hint='Set it to, for example, "Example <no-reply@app.example>".'
            )
        return cls(
            host, port or _PORTS[parts.scheme], username=username, password=password, sender=settings.sender,
            tls=_tls(parts), timeout=settings.timeout,
        )  # fmt: skip

    def send(self, mail: Mail) -> None:
        """Send it now. If the connection breaks just when the server takes charge of it, it may leave all the same.

        Raises:
            MailNotSent: If that is not sure; the hint says why, and holds nothing of the mail.
        """
        to = _ascii_domain(mail.to)
        message = self._message(mail, to)
        until, sent = time.monotonic() + self._timeout, False
        try:
            with self._connection(until) as smtp:
                self._send(smtp, message, to)
                sent = True
                smtp.quit()
        except (OSError, ValueError, RuntimeError) as error:
            if not sent:  # else it has left, and a bad good-bye must not send it again
                # Not chained: what the server said may repeat what it was sent.
                raise _not_sent(error, in_time=time.monotonic() < until) from None

    def _message(self, mail: Mail, to: str) -> EmailMessage:
        message = EmailMessage(policy=_POLICY)
        username, _, domain = to.partition("@")
        message["To"] = Address(username=username, domain=domain)
        message["From"] = self._sender
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain=self._sender.domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 5: nobody's holiday reply comes back
        message.set_content(mail.text)
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html")
        return message

    @contextlib.contextmanager
    def _connection(self, until: float) -> Iterator[smtplib.SMTP]:
        """A connection that has been greeted, secured and signed in on, hung up at the latest at that time."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(contextlib.closing(_connect(self._host, self._port, until)))
            stack.enter_context(contextlib.closing(_Deadline(sock, until)))
            name = _literal(sock.getsockname()[0])
            if self._context is not None and self._tls == "implicit":
                with self._gate:
                    sock = self._context.wrap_socket(sock, server_hostname=self._host)
                stack.enter_context(contextlib.closing(sock))
            smtp = _SMTP(self._host, sock, name)
            stack.enter_context(contextlib.closing(smtp))
            if self._context is not None and self._tls == "starttls":
                _require(smtp, "starttls")
                with self._gate:
                    smtp.starttls(context=self._context)
            if self._username is not None and self._password is not None:
                _require(smtp, "auth")
                smtp.login(self._username, self._password)
            yield smtp

    def _send(self, smtp: smtplib.SMTP, message: EmailMessage, to: str) -> None:
        if not to.isascii():
            _require(smtp, "smtputf8", permanent=True)  # RFC 6531
        smtp.send_message(message, self._sender.addr_spec, [to])

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See ``around_forks``: a child that is born while OpenSSL makes a connection waits for ever on its locks."""
        self._gate.close(self._timeout)

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``."""
        self._gate = Gate()


def _tls(parts: SplitResult) -> TLS:
    if parts.scheme == "smtps" and not parts.query:
        return "implicit"
    if parts.scheme == "smtp" and not parts.query:
        return "starttls"
    if parts.scheme == "smtp" and parse_qsl(parts.query, keep_blank_values=True) == [("tls", "none")]:
        return "none"
    raise ConfigError("mail.url has no option but tls=none, with smtp:// alone.", hint=_URL_HINT)


def _sender(text: str) -> Address:
    """The one address in it, with its name.

    Raises:
        ConfigError: If there is none, or more than one.
    """
    try:
        [(name, address)] = getaddresses([text])
        check_address(address)
        sender = Address(name, addr_spec=address)
        EmailMessage(policy=_POLICY)["From"] = sender
    except Exception:  # noqa: BLE001 - the parser raises whatever it trips over
        sender = None
    if sender is None or not sender.addr_spec.isascii() or any(map(is_control, text)):
        raise ConfigError(
            "mail.sender is no e-mail address.",
            hint='Write no-reply@app.example or "Example <no-reply@app.example>"; a name with a comma in quotes.',
        )
    return sender


def _ascii_domain(address: str) -> str:
    """The address with its domain as a name server knows it (RFC 5891), which every mail server takes."""
    if address.isascii():
        return address
    try:
        from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 - an extra
    except ImportError:
        return address
    try:
        return validate_email(address, check_deliverability=False, test_environment=True).ascii_email or address
    except EmailNotValidError:
        return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"  # RFC 6761 6.3


# -- one connection -----------------------------------------------------------------------------------------


class _SMTP(smtplib.SMTP):
    """smtplib's protocol over a connection that was made for it; it asks no name server what this host is called."""

    def __init__(self, host: str, sock: socket.socket, name: str) -> None:
        self._connected = sock
        super().__init__(host, local_hostname=name)

    def connect(self, *_: Any, **__: Any) -> tuple[int, bytes]:  # what smtplib passes is of no interest here
        """Read the server's greeting."""
        self.sock = self._connected
        return self.getreply()


class _Deadline:
    """Hangs up when time is over, where a socket's own timeout begins anew with every byte that trickles in."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock.dup()  # TLS takes the original away
        self._timer = threading.Timer(max(0.0, until - time.monotonic()), self._hang_up)
        self._timer.daemon = True
        try:
            self._timer.start()
        except BaseException:
            self._sock.close()
            raise

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # the server was faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up now, also for a child of a fork, which has a copy of the connection."""
        self._timer.cancel()
        self._timer.join()
        self._hang_up()
        self._sock.close()


def _connect(host: str, port: int, until: float) -> socket.socket:
    """A connection to the first of the host's addresses that answers, all of them in the same time."""
    failure: OSError = TimeoutError()
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, until - time.monotonic()))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _literal(address: str) -> str:
    """An address as a name for EHLO (RFC 5321 4.1.3)."""
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"


def _require(smtp: smtplib.SMTP, extension: str, *, permanent: bool = False) -> None:
    smtp.ehlo_or_helo_if_needed()
    if not smtp.has_extn(extension):
        raise MailNotSent(hint=f"The mail server does not offer {extension.upper()}.", permanent=permanent)


def _not_sent(error: Exception, *, in_time: bool) -> MailNotSent:
    """What to raise, with codes of the server's answer and none of its words: they may repeat what it was sent."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return _refused("the recipient", *next(iter(error.recipients.values())), final=True)
    if isinstance(error, smtplib.SMTPResponseException):
        what = next((what for kind, what in _REFUSED.items() if isinstance(error, kind)), "to talk")
        return _refused(what, error.smtp_code, error.smtp_error, final=isinstance(error, smtplib.SMTPDataError))
    if not in_time or isinstance(error, TimeoutError):
        return MailNotSent(hint="The mail server took longer than mail.timeout.")
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailNotSent(hint=f"The mail server's certificate was not accepted: {error.verify_message}.")
    return MailNotSent(hint=f"The mail server cannot be talked to: {type(error).__name__}.")


def _refused(what: str, code: int, answer: bytes | str, *, final: bool) -> MailNotSent:
    """What to raise for a reply code; ``final`` if a 5xx one is about this mail, and not about the server's set-up."""
    enhanced = _ENHANCED_CODE.match(answer if isinstance(answer, bytes) else answer.encode("ascii", "replace"))
    codes = str(code) if enhanced is None else f"{code} {enhanced[0].decode()}"
    permanent = final and 500 <= code <= 599  # noqa: PLR2004 - RFC 5321 4.2.1: permanent negative completion
    return MailNotSent(hint=f"The mail server refused {what}: {codes}.", permanent=permanent)


_all_mailers: weakref.WeakSet[SMTPMailer] = weakref.WeakSet()

around_forks(
    _all_mailers,
    before=SMTPMailer.before_fork,
    after_in_parent=SMTPMailer.after_fork_in_parent,
    after_in_child=SMTPMailer.after_fork_in_child,
)
