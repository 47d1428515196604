"""What Jam writes to people.

A letter in the outbox says what it is about and to whom; the mail is written when it leaves, and the token of its link
is made then, so that nothing secret waits in the outbox. Links begin with the configured ``accounts.base_url``, never
with what a request called the host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Formatter
from urllib.parse import quote

from jam.accounts.emails import CHANGE, VERIFY, change_state, verify_state
from jam.accounts.mail import Mail
from jam.accounts.outbox import Letter
from jam.accounts.recover import PURPOSE as RESET
from jam.accounts.recover import reset_state
from jam.accounts.register import PURPOSE as REGISTER
from jam.accounts.register import TEMPLATE as CONFIRM
from jam.accounts.users import Account, UserStore
from jam.config import Settings
from jam.credentials.one_time_tokens import OneTimeTokens
from jam.errors import ConfigError, GenerationOutdated

__all__ = ["LINKS", "NOTICES", "TEXTS", "Letters"]

#: Mails that only say what has happened.
NOTICES = frozenset(("account_deleted", "email_changed", "password_changed"))

_TEXT = re.compile(r"[^\n]+\n\n.")
_FIELDS = frozenset(("app", "email", "hours", "link", "username"))

#: Where the links lead, below ``accounts.base_url`` and the prefix of the flows, by the purpose of their tokens.
LINKS: Mapping[str, str] = {
    RESET: "/reset?token={token}",
    REGISTER: "/register/confirm?token={token}",
    VERIFY: "/verify?token={token}",
    CHANGE: "/email/confirm?token={token}",
}

#: Each mail: its subject in the first line, an empty line, and its text. The fields are {app}, {username}, {link},
#: {email} and {hours}. What may go to a stranger calls nobody by name: names are chosen, and may look like links.
TEXTS: Mapping[str, str] = {
    CONFIRM: """Confirm your account at {app}

Hello,

somebody asked for an account at {app} with this e-mail address. If it was you,
confirm it here within {hours}:

{link}

If it was not you, do nothing: there will be no account.
""",
    "already_registered": """You have an account at {app} already

Hello {username},

somebody asked for an account at {app} with this e-mail address, and there is
one: yours. If it was you, sign in, or set a new password here within {hours}:

{link}

If it was not you, do nothing.
""",
    RESET: """Set a new password at {app}

Hello {username},

somebody said that they forgot the password of your account at {app}. If it was
you, set a new one here within {hours}:

{link}

If it was not you, do nothing: your password stays as it is.
""",
    VERIFY: """Verify your e-mail address at {app}

Hello,

please confirm within {hours} that this is the e-mail address of your account
at {app}:

{link}

If you have no account there, do nothing.
""",
    CHANGE: """Confirm your new e-mail address at {app}

Hello,

please confirm within {hours} that this is to be the e-mail address of your
account at {app}:

{link}

If you did not ask for that, do nothing.
""",
    "email_taken": """This e-mail address is yours at {app} already

Hello {username},

somebody wanted to make this the e-mail address of another account at {app}. It
is that of yours, so nothing was changed.
""",
    "email_changed": """Your e-mail address at {app} was changed

Hello {username},

the e-mail address of your account at {app} is another one now. If that was not
you, get in touch with {app} at once.
""",
    "password_changed": """Your password at {app} was changed

Hello {username},

your account at {app} has a new password, and whoever was signed in elsewhere
has been signed out. If that was not you, say that you forgot your password and
set another one at once.
""",
    "account_deleted": """Your account at {app} was deleted

Hello {username},

your account at {app} is gone. If that was not you, get in touch with {app}.
""",
}


class Letters:
    """Writes the mails of an app.

    Args:
        users: Who there is.
        tokens: What the links carry.
        settings: The app's name, its ``base_url``, and how long links are good.
        texts: Others than ``TEXTS``, by template.
        links: Others than ``LINKS``, by purpose: the paths of a single-page app, for one; without the prefix.
        prefix: Where the flows are.

    Raises:
        ConfigError: If a text or link has a field that does not exist.
    """

    def __init__(
        self,
        users: UserStore,
        tokens: OneTimeTokens,
        settings: Settings,
        *,
        texts: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
        prefix: str = "/auth",
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._settings = settings
        self._texts = {**TEXTS, **(texts or {})}
        self._links = {**{name: prefix.rstrip("/") + path for name, path in LINKS.items()}, **(links or {})}
        for name, text in self._texts.items():
            if name not in TEXTS or not isinstance(text, str) or not _TEXT.match(text):
                raise ConfigError(
                    f"{name!r} is no mail: its subject stands in the first line, and its text after an empty one.",
                    hint=f"There are: {', '.join(TEXTS)}.",
                )
            if not _FIELDS.issuperset(_fields(text)):
                raise ConfigError(
                    f"The text of the mail {name!r} has a field that does not exist.",
                    hint=f"There are: {', '.join(sorted(_FIELDS))}. A brace that is meant is written twice.",
                )
        for name, path in self._links.items():
            is_path = isinstance(path, str) and path.startswith("/") and path.isprintable() and " " not in path
            if name not in LINKS or not is_path or _fields(path) != ["token"]:
                raise ConfigError(f"The link for {name!r} is not a path with one {{token}} in it.")

    def check_base_url(self) -> str:
        """Where links begin.

        Raises:
            ConfigError: If nobody has said it.
        """
        base_url = self._settings.accounts.base_url
        if base_url is None:
            raise ConfigError(
                "A mail with a link is to be sent, and accounts.base_url does not say where links begin.",
                hint='Set JAM_ACCOUNTS_BASE_URL = "https://app.example". A request\'s Host header is never believed.',
            )
        return base_url

    def write(self, letter: Letter) -> Mail | None:
        """The mail of a letter; ``None`` if there is nothing to be said to anybody.

        Raises:
            StoreUnavailable: If its token could not be kept.
        """
        if letter.template == CONFIRM:
            return self._registration(letter)
        if letter.template in NOTICES:
            return self._mail(letter.template, letter.to, username=letter.data["username"])
        account = None if letter.subject is None else self._users.get(letter.subject)
        if account is None:
            return None
        if letter.template == RESET:
            return self._with_link(RESET, account.email or "", account, reset_state(account))
        if letter.template == VERIFY:
            if account.email != letter.to or account.email_verified:
                return None
            return self._with_link(VERIFY, letter.to, account, verify_state(account))
        return self._change(letter, account)

    def _registration(self, letter: Letter) -> Mail | None:
        known = self._users.find(letter.to)
        if known is not None:
            return self._with_link(
                RESET, known.email or letter.to, known, reset_state(known), template="already_registered"
            )
        lifetime = self._settings.accounts.verify_lifetime
        token = self._tokens.issue(REGISTER, "", lifetime=lifetime, data={**letter.data, "email": letter.to})
        return self._mail(
            CONFIRM, letter.to, username=letter.data["username"], link=self._link(REGISTER, token), lifetime=lifetime
        )

    def _change(self, letter: Letter, account: Account) -> Mail | None:
        taken = self._users.find(letter.data["email"])
        if taken is not None and taken.subject != account.subject:
            return self._mail("email_taken", letter.to, username=taken.username)
        return self._with_link(
            CHANGE, letter.to, account, change_state(account), data={"email": letter.data["email"]},
            generation=letter.data["generation"],
        )  # fmt: skip

    def _with_link(
        self,
        purpose: str,
        to: str,
        account: Account,
        state: tuple[str | None, ...],
        *,
        template: str | None = None,
        data: Mapping[str, str] | None = None,
        generation: int | None = None,
    ) -> Mail | None:
        if not account.is_active or not to:
            return None
        settings = self._settings.accounts
        lifetime = settings.reset_lifetime if purpose == RESET else settings.verify_lifetime
        try:
            token = self._tokens.issue(
                purpose, account.subject, lifetime=lifetime, state=state, data=data, generation=generation
            )
        except GenerationOutdated:  # everything was revoked this very moment, or since the letter was added
            return None
        return self._mail(
            template or purpose, to, username=account.username, link=self._link(purpose, token), lifetime=lifetime
        )

    def _link(self, purpose: str, token: str) -> str:
        return self.check_base_url() + self._links[purpose].format(token=quote(token, safe=""))

    def _mail(self, template: str, to: str, *, username: str, link: str = "", lifetime: float = 0.0) -> Mail:
        subject, _, text = self._texts[template].partition("\n\n")
        fields = {"app": self._settings.name, "username": username, "link": link, "email": to, "hours": _long(lifetime)}
        return Mail(to=to, subject=subject.format(**fields), text=text.format(**fields))


def _fields(template: str) -> list[str]:
    """The fields of a template; what does more than fill one in, such as ``{link!r}``, is a field that nobody has."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError:
        return [template]
    return [template if spec or conversion else name or template for _, name, spec, conversion in parts]


def _long(seconds: float) -> str:
    """How long that is, in words."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} seconds"
