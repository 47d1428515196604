"""Where this app looks for API tokens: beside the access tokens, in the same header."""

from __future__ import annotations

from flask import Flask

from jam.ext.flask.carriers import APITokenCarrier
from jam.ext.flask.extensions import JamExtension, checked_name
from jam.jam import Jam

__all__ = ["APITokenExtension"]


class APITokenExtension(JamExtension):
    """Looks for an API token, ``Authorization: Bearer jam_...``.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        header_name: A header of the form ``Bearer <token>``.
    """

    method = "api_token"

    def __init__(self, jam: Jam, app: Flask | None = None, header_name: str = "Authorization") -> None:
        self.header_name = checked_name(header_name)
        super().__init__(jam, app)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already.
        """
        self._attach(app).carry(APITokenCarrier, self.header_name, self.method)
