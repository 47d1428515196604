"""For an app's own tests: a client that signs in as anyone, and a check that no route was left open."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from jam.errors import ConfigError
from jam.events import Event
from jam.ext.flask.cli import routes_of
from jam.ext.flask.request import JamState, state_of
from jam.ext.flask.users import subject_of

__all__ = ["CapturedEvents", "JamClient", "assert_guarded"]

_LONG_AGO = 365 * 86400.0


class JamClient(FlaskClient):
    """Flask's test client as a browser on the site's own pages: it says so in ``Sec-Fetch-Site``.

    Set ``app.test_client_class = JamClient``, or take the fixture ``jam_client``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ_base = {**self.environ_base, "HTTP_SEC_FETCH_SITE": "same-origin"}

    def login_as(
        self,
        user: Any,
        *,
        by: str = "session",
        fresh: bool = True,
        roles: Collection[str] | None = None,
        scopes: Collection[str] = (),
        amr: Collection[str] = (),
    ) -> JamClient:
        """Be this user from now on, by a real session or token: nothing is switched off.

        Args:
            user: The app's user, or a subject.
            by: ``"session"`` or ``"token"``, where the app takes both; the other one is then forgotten.
            fresh: Whether the person has just proved who they are; or a year ago.
            roles: The roles of the credential; where the app has ``get_user_roles``, that decides and these may not
                be given.
            scopes: Its scopes.
            amr: How the person signed in (RFC 8176).

        Returns:
            The client.

        Raises:
            ConfigError: If the app does not take such a credential, or decides itself about roles.
        """
        app: Flask = self.application
        with app.app_context():
            state = state_of(app)
            state.prepare()
            if roles is not None and state.callback("get_user_roles") is not None:
                raise ConfigError(
                    "The app's get_user_roles decides which roles a user has.", hint="Give the user the roles instead."
                )
            subject = subject_of(state, user)
            self.logout()
            signed_in_at = state.clock() - (0.0 if fresh else _LONG_AGO)
            given: dict[str, Any] = {"roles": tuple(roles or ()), "scopes": tuple(scopes), "amr": tuple(amr)}
            if by == "session":
                self._bring_session(state, subject, signed_in_at, fresh, given)
            elif by == "token":
                self._bring_token(state, subject, signed_in_at, fresh, given)
            else:
                raise ConfigError("login_as signs in by 'session' or by 'token'.")
        return self

    def _bring_session(
        self, state: JamState, subject: str, signed_in_at: float, fresh: bool, given: dict[str, Any]
    ) -> None:
        if state.lookup.session_cookie is None:
            raise ConfigError("The app has no SessionExtension with a cookie.", hint="Use login_as(user, by='token').")
        handle = state.jam.sessions.create(subject, authenticated_at=signed_in_at, fresh=fresh, **given)
        self.set_cookie(state.lookup.session_cookie, handle, domain=self._host())

    def _bring_token(
        self, state: JamState, subject: str, signed_in_at: float, fresh: bool, given: dict[str, Any]
    ) -> None:
        claims = {"type": "access", "fresh": fresh}
        token = state.jam.access_tokens.issue(subject, authenticated_at=signed_in_at, claims=claims, **given)
        if state.lookup.looks_in_headers():
            scheme = state.lookup.tokens.header_type
            self.environ_base[state.lookup.token_header_key()] = f"{scheme} {token}".strip()
        elif state.lookup.looks_in_cookies():
            self.set_cookie(
                state.lookup.access_cookie, token, domain=self._host(), path=state.lookup.tokens.access_cookie_path
            )
        else:
            raise ConfigError("The app takes no token from a header or a cookie.", hint="Use login_as(user).")

    def _host(self) -> str:
        """The host that this client calls."""
        name: str | None = self.application.config.get("SERVER_NAME")
        return (name or "localhost").partition(":")[0]

    def logout(self) -> None:
        """Be nobody from now on; on the server nothing is ended."""
        state = state_of(self.application)
        state.prepare()
        names = {
            state.lookup.session_cookie,
            state.lookup.remember_cookie,
            state.lookup.access_cookie,
            state.lookup.refresh_cookie,
        }
        for cookie in list((self._cookies or {}).values()):
            if cookie.key in names:
                self.delete_cookie(cookie.key, domain=cookie.domain, path=cookie.path)
        self.environ_base.pop(state.lookup.token_header_key(), None)


class CapturedEvents(list[Event]):
    """The events that were heard, in order."""

    def of(self, kind: type[Event]) -> list[Any]:
        """Those of one kind."""
        return [event for event in self if isinstance(event, kind)]


def assert_guarded(app: Flask, unprotected: Collection[str] = ()) -> None:
    """Fail if a route is neither guarded nor marked ``public``, and not on the list.

    Args:
        app: The app.
        unprotected: Endpoints, or rules, that are open on purpose. What is on the list and guarded, or no route at
            all, is complained of too: such a list would let the next mistake pass.

    Raises:
        AssertionError: Naming the routes.
    """
    listed = {unprotected} if isinstance(unprotected, str) else set(unprotected)
    found = [route for route in routes_of(app) if route.status == "unprotected"]
    forgotten = [route for route in found if not {route.endpoint, route.rule} & listed]
    needless = listed - {name for route in found for name in (route.endpoint, route.rule)}
    problems = [
        f"{','.join(route.methods)} {route.rule} ({route.endpoint}) is open to everybody: guard it, mark it with "
        "@public, or put it on the list" for route in forgotten
    ]  # fmt: skip
    problems += [f"{name!r} is on the list and not an unprotected route" for name in sorted(needless)]
    if problems:
        raise AssertionError("\n".join(problems))
