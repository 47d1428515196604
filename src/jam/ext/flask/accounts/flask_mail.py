"""Mail by Flask-Mail, for an app that has it: its server, its sender, and its ``record_messages`` in tests."""

from __future__ import annotations

import smtplib
from typing import Any

from flask import Flask

from jam.accounts.mail import Mail
from jam.errors import MailNotSent

__all__ = ["FlaskMailMailer"]

_PERMANENT = 500  # an SMTP answer from here on says that trying again is of no use (RFC 5321 4.2.1)


class FlaskMailMailer:
    """Sends by the Flask-Mail that is set up on an app.

    Args:
        app: The app.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app

    def send(self, mail: Mail) -> None:
        """Send a mail.

        Raises:
            MailNotSent: If it did not leave.
        """
        from flask_mail import BadHeaderError, Message  # noqa: PLC0415 - the app's

        sender: Any = self._app.extensions["mail"]
        with self._app.app_context():
            try:
                sender.send(Message(mail.subject, recipients=[mail.to], body=mail.text, html=mail.html))
            except smtplib.SMTPRecipientsRefused as error:
                codes = [code for code, _ in error.recipients.values()]
                permanent = bool(codes) and min(codes) >= _PERMANENT
                raise MailNotSent(hint=f"The server refused the recipient: {codes}.", permanent=permanent) from None
            except (smtplib.SMTPException, OSError, BadHeaderError, AssertionError) as error:
                # An assertion of Flask-Mail's says that there is no sender. Its words may quote the mail.
                raise MailNotSent(hint=f"Flask-Mail says: {type(error).__name__}.") from None
