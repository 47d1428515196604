"""Where an app looks for credentials, and what its cookies are called.

The extensions say where; the app's configuration may say otherwise. Both are worked out once, when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flask import Request, Response

from jam.errors import ConfigError
from jam.ext.flask.carriers import (
    BasicCarrier,
    Carrier,
    CookieCarrier,
    HeaderCarrier,
    JSONCarrier,
    QueryCarrier,
    cookie_values,
    header_key,
)
from jam.ext.flask.resolved import Places, Wanted, places_of
from jam.ext.flask.settings import LoginOptions, TokenOptions
from jam.identity import Identity

__all__ = ["Lookup"]

Verify = Callable[[str], Identity]
_PRIVATE = ("Cache-Control", "private")
_TOKENS = frozenset(("jwt", "refresh_token"))
_SET_UP = {
    "api_token": "APITokenExtension(jam, app)",
    "basic": "BasicExtension(jam, app, accounts=...)",
    "jwt": "JWTExtension(jam, app)",
    "refresh_token": "JWTExtension(jam, app)",
}


class Lookup:
    """The carriers of one app.

    Attributes:
        places: Where to look, if no guard says otherwise.
        tokens: What the configuration says of tokens.
        login: What it says of the cookie that remembers a browser.
        https: Whether browsers reach the app by https.
        access_cookie: The name of the cookie with an access token.
        refresh_cookie: That of the cookie with a refresh token.
        session_cookie: That of the cookie with a session's handle; ``None`` if no extension has one.
        remember_cookie: That of the cookie that remembers a browser.
        verify_basic: What checks user name and password, where a guard asks for them.
        csrf_cookie: That of the cookie that a CSRF value belongs to before anybody has signed in.
        csrf_headers: Where such a value may come, by the headers' names in a WSGI environment.
        csrf_fields: And in which fields of a form.
    """

    def __init__(self) -> None:
        self._registered: list[tuple[type[Carrier], str, str]] = []
        self._all: list[tuple[str, Carrier]] = []
        self._narrowed: dict[Wanted, Places] = {}
        self._token_locations: frozenset[str] = frozenset()
        self.places = Places((), (), ())
        self.tokens = TokenOptions()
        self.login = LoginOptions()
        self.https = True
        self.access_cookie = self.refresh_cookie = self.remember_cookie = self.csrf_cookie = ""
        self.session_cookie: str | None = None
        self.verify_basic: Verify | None = None
        self.csrf_headers: tuple[str, ...] = ()
        self.csrf_fields: tuple[str, ...] = ()
        self._vary: tuple[str, ...] = ("Authorization", "Cookie")
        self._vary_line = ", ".join(self._vary)
        self._header_keys: tuple[str, ...] = ()
        self._cookie_names: tuple[str, ...] = ()

    def register(self, kind: type[Carrier], name: str, method: str) -> bool:
        """Look for a credential of this method in the header or cookie of that name; ``False`` if it is known."""
        if (kind, name, method) in self._registered:
            return False
        self._registered.append((kind, name, method))
        self._note_names([(kind, name) for kind, name, _ in self._registered])
        return True

    def methods(self) -> frozenset[str]:
        """The methods of the identities that the registered carriers prove."""
        return frozenset(method for _, _, method in self._registered)

    def __bool__(self) -> bool:
        """Whether anybody can be identified in this app."""
        return bool(self._registered)

    def settle(
        self, tokens: TokenOptions, login: LoginOptions, verifier: Callable[[str], Verify], *, https: bool
    ) -> None:
        """Work it all out.

        Args:
            tokens: What the configuration says of tokens.
            login: What it says of the cookie that remembers a browser.
            verifier: What verifies the credentials of a method.
            https: Whether browsers reach the app by https.

        Raises:
            ConfigError: If cookies have the same name, or one that promises what it does not keep.
        """
        self.tokens, self.login, self.https = tokens, login, https
        self._place(verifier)
        self._check_cookies()

    def _note_names(self, wanted: list[tuple[type[Carrier], str]]) -> None:
        """Remember which headers and cookies a response depends on."""
        headers = [name for kind, name in wanted if issubclass(kind, HeaderCarrier)]
        self._vary = tuple(dict.fromkeys(("Authorization", *headers, "Cookie")))
        self._vary_line = ", ".join(self._vary)
        self._header_keys = tuple(header_key(name) for name in headers)
        self._cookie_names = tuple(name for kind, name in wanted if issubclass(kind, CookieCarrier))

    def _place(self, verifier: Callable[[str], Verify]) -> None:
        """Work out where to look: where the extensions were told to, unless the app's configuration says otherwise."""
        options = self.tokens
        named = {HeaderCarrier: options.header_name, CookieCarrier: options.access_cookie_name}
        at_root = options.access_cookie_path == "/" and options.cookie_domain is None
        usual: dict[type[Carrier], str] = {
            HeaderCarrier: options.header_name or "Authorization",
            CookieCarrier: options.access_cookie_name or self._prefixed("access_token_cookie", whole=at_root),
            QueryCarrier: options.query_string_name,
            JSONCarrier: options.json_key,
        }
        entries = {
            (kind, (method == "jwt" and named.get(kind)) or name, method): None
            for kind, name, method in self._registered
            if method != "jwt" or options.locations is None or kind.location in options.locations
        }
        if any(method == "jwt" for _, _, method in self._registered):
            present = {kind for kind, _, method in entries if method == "jwt"}
            for kind, name in usual.items():
                if kind not in present and kind.location in (options.locations or ()):
                    entries[kind, name, "jwt"] = None
        self._token_locations = frozenset(kind.location for kind, _, method in entries if method == "jwt")
        cookies = [name for kind, name, method in entries if method == "jwt" and kind is CookieCarrier]
        self.access_cookie = cookies[0] if cookies else usual[CookieCarrier]
        self.refresh_cookie = options.refresh_cookie_name or self._prefixed("refresh_token_cookie", whole=False)
        whole = self.login.path == "/" and self.login.domain is None
        self.remember_cookie = self.login.name or self._prefixed("remember_token", whole=whole)
        self._note_names([(kind, name) for kind, name, _ in entries])
        self.csrf_cookie = self._prefixed("jam_csrf", whole=True)
        self.csrf_headers = tuple(
            header_key(name)
            for name in (
                "X-CSRF-Token",
                "X-CSRFToken",
                options.access_csrf_header_name,
                options.refresh_csrf_header_name,
            )
        )
        self.csrf_fields = ("csrf_token", options.access_csrf_field_name, options.refresh_csrf_field_name)
        if self.session_cookie is not None:
            self._cookie_names += (self.remember_cookie,)

        made = [
            (method, self._carrier(kind, name, verifier(method), of_session=method == "session"))
            for kind, name, method in entries
        ]
        self.places = places_of(made)
        headers = [name for kind, name, method in entries if method == "jwt" and kind is HeaderCarrier]
        refresh: list[tuple[type[Carrier], str]] = [
            *((HeaderCarrier, name) for name in headers or [usual[HeaderCarrier]]),
            (CookieCarrier, self.refresh_cookie),
            (QueryCarrier, options.query_string_name),
            (JSONCarrier, options.refresh_json_key),
        ]
        self._all = [
            *made,
            *(("jwt", self._carrier(kind, name, verifier("jwt")))
              for kind, name in usual.items() if kind.location not in self._token_locations),
            *(("refresh_token", self._carrier(kind, name, verifier("refresh_token"))) for kind, name in refresh),
            *([] if self.verify_basic is None else [("basic", BasicCarrier(self.verify_basic))]),
        ]  # fmt: skip
        self._narrowed = {}

    def _carrier(self, kind: type[Carrier], name: str, verify: Verify, *, of_session: bool = False) -> Carrier:
        if kind is HeaderCarrier and not of_session:
            return HeaderCarrier(name, verify, self.tokens.header_type)
        if kind is QueryCarrier:
            return QueryCarrier(name, verify, self.tokens.query_string_value_prefix)
        return kind(name, verify)

    def _prefixed(self, name: str, *, whole: bool) -> str:
        """One of Jam's own cookie names, with the prefix whose promise it keeps (RFC 6265bis 4.1.3).

        Args:
            name: The name.
            whole: Whether the cookie is for the whole host, and for no other.
        """
        if not self.https:
            return name
        return f"__Host-{name}" if whole else f"__Secure-{name}"

    def looks_in_headers(self) -> bool:
        """Whether access tokens are looked for in a header."""
        return "headers" in self._token_locations

    def token_header_key(self) -> str:
        """The header that access tokens are looked for in, by its name in a WSGI environment."""
        names = [c.name for method, c in self._all if method == "jwt" and isinstance(c, HeaderCarrier)]
        return header_key(names[0])

    def looks_in_cookies(self) -> bool:
        """Whether access tokens are looked for in a cookie."""
        return "cookies" in self._token_locations

    def narrowed(self, wanted: Wanted) -> Places:
        """Where to look for what a guard takes.

        Raises:
            ConfigError: If no extension looks for any of it.
        """
        known = self._narrowed.get(wanted)
        if known is None:
            looked_for = {"session", *self.methods(), *(["basic"] if self.verify_basic is not None else [])} - _TOKENS
            if not wanted.methods & (looked_for | _TOKENS if self._token_locations else looked_for):
                raise ConfigError(
                    "A guard demands a token, and the app looks for none."
                    if wanted.methods & _TOKENS
                    else f"A guard demands {' or '.join(sorted(wanted.methods))}, and the app looks for none.",
                    hint=" ".join(f"Set up {_SET_UP[method]}." for method in sorted(wanted.methods & _SET_UP.keys())),
                )
            locations = self._token_locations if wanted.locations is None else wanted.locations
            known = places_of(
                (method, carrier) for method, carrier in self._all
                if method in wanted.methods
                and (carrier.location in locations or (method not in _TOKENS and wanted.locations is None))
            )  # fmt: skip
            if known == self.places:
                known = self.places
            self._narrowed[wanted] = known
        return known

    def _check_cookies(self) -> None:
        """Refuse names that two cookies share, and prefixes whose promise a cookie does not keep."""
        tokens, login = self.tokens, self.login
        carried = [carrier.name for carrier in self.places.cookies]
        others = [self.csrf_cookie]
        in_use: list[tuple[str, str, str | None, bool | None]] = [
            (name, "/", None, None) for name in carried if name != self.access_cookie
        ]
        if self.looks_in_cookies():
            secure, domain = tokens.cookie_secure, tokens.cookie_domain
            in_use.append((self.access_cookie, tokens.access_cookie_path, domain, secure))
            in_use.append((self.refresh_cookie, tokens.refresh_cookie_path or "/", domain, secure))
            others.append(self.refresh_cookie)
            if tokens.csrf_in_cookies:
                others += [tokens.access_csrf_cookie_name, tokens.refresh_csrf_cookie_name]
        if self.session_cookie is not None:
            in_use.append((self.remember_cookie, login.path, login.domain, login.secure))
            others.append(self.remember_cookie)
        for name, path, domain, secure in in_use:
            if not (self.https if secure is None else secure):
                self.check_cookie_name(name)
            if name.lower().startswith("__host-") and (path != "/" or domain is not None):
                raise ConfigError(
                    f"Browsers take the cookie {name} only for the whole of one host: with the path / and without a "
                    "domain.",
                    hint="Give it a name without the prefix, or leave path and domain out.",
                )
        if self.looks_in_cookies() and self.access_cookie == self.session_cookie:
            raise ConfigError(f"Two of Jam's cookies are named {self.access_cookie}.", hint="Rename one of them.")
        for name in others:
            if [*carried, *others].count(name) > 1:
                raise ConfigError(f"Two of Jam's cookies are named {name}.", hint="Give each a name of its own.")

    def check_cookie_name(self, name: str) -> None:
        """Refuse a prefix whose promise the app cannot keep (RFC 6265bis 4.1.3, compared as browsers do)."""
        if name.lower().startswith(("__host-", "__secure-")) and not self.https:
            raise ConfigError(
                f"Browsers take the cookie {name} only by https, and JAM_HTTPS says this app is not reached by it.",
                hint="Set JAM_HTTPS, or choose a name without the prefix.",
            )

    def everything_brought(self, request: Request) -> tuple[list[str], list[str]]:
        """The handles and the tokens that a request carries in headers and cookies, whatever they are worth."""
        handles: list[str] = []
        tokens: list[str] = []
        for method, carrier in self._all:
            if method in ("api_token", "basic"):  # they begin no login, so none ends with them
                continue
            found: Iterable[str | None] = ()
            if isinstance(carrier, HeaderCarrier):
                found = (carrier.read(request.environ),)
            elif isinstance(carrier, CookieCarrier):
                found = cookie_values(request.environ, carrier.name, None)
            (handles if method == "session" else tokens).extend(value for value in found if value)
        return handles, list(dict.fromkeys(tokens))

    def cookie_names(self) -> tuple[str, ...]:
        """The cookies that prove somebody, to which a CSRF value may belong."""
        return tuple(dict.fromkeys((*self._cookie_names, self.access_cookie, self.refresh_cookie)))

    def write_dependence(self, response: Response, *, private: bool) -> None:
        """Write into a response that it depends on the caller.

        Args:
            response: The response.
            private: Whether it is for nobody else, where it does not say itself who may keep it.
        """
        headers = response.headers
        present = {name.lower() for name, _ in headers}
        added: list[tuple[str, str]] = []
        if "vary" in present:
            named = {name.strip().lower() for value in headers.getlist("Vary") for name in value.split(",")}
            if missing := [name for name in self._vary if name.lower() not in named]:
                added.append(("Vary", ", ".join(missing)))
        else:
            added.append(("Vary", self._vary_line))
        if private and "cache-control" not in present:
            added.append(_PRIVATE)
        headers._list += added  # noqa: SLF001 - what is known to be well formed need not be checked each time

    def carries_credentials(self, request: Request) -> bool:
        """Whether the request has something where the app looks; what it is worth is not asked."""
        environ = request.environ
        if any(key in environ for key in self._header_keys):
            return True
        cookies = environ.get("HTTP_COOKIE")
        return cookies is not None and any(name in cookies for name in self._cookie_names)
