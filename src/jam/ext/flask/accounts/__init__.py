"""Accounts over HTTP: the flows of ``jam.accounts`` as JSON, and the users and tokens of the API."""

from jam.ext.flask.accounts.extension import AccountsExtension

__all__ = ["AccountsExtension"]
