"""Checked by mypy --strict, never run: what an app's own type checker sees of Jam."""

from typing import assert_type

from flask import Flask, g

from jam import ANONYMOUS, Identity, Jam
from jam.accounts.accounts import Accounts
from jam.accounts.password_check import Proof
from jam.accounts.sql_users import SQLUsers, open_users
from jam.accounts.users import Account, UserStore
from jam.checkpoints import Authenticated, Checkpoint, Decision, HasRole, HasScope
from jam.ext.flask import SessionCheckpoint, SessionExtension, checkpoint, current_identity, login_required
from jam.ext.flask.accounts import AccountsExtension
from jam.stores import Store

app = Flask(__name__)
jam = Jam({"secret": "x"})
sessions = SessionExtension(jam, app)

assert_type(jam.store, Store)
assert_type(jam.access_tokens.issue("alice"), str)
assert_type(jam.access_tokens.verify("token"), Identity)
assert_type(jam.get_session("handle"), "dict[str, object] | None")  # type: ignore[assert-type]  # its values are Any
assert_type(current_identity, Identity)

users = open_users("sqlite:///people.db")
anybodys: UserStore = users
accounts = Accounts(jam, users)
AccountsExtension(jam, app, accounts=accounts)
assert_type(users, SQLUsers)
assert_type(accounts.users.get("1"), Account | None)
assert_type(accounts.sign_in.start("alice", "password"), Proof)
assert_type(accounts.registration.confirm("token", "password"), Account)
assert_type(jam.api_tokens.create("1", "script"), str)
assert_type(ANONYMOUS.subject, "str | None")
assert_type(Authenticated() & (HasRole("admin") | ~HasScope("x")), Checkpoint)
assert_type(HasRole("admin").evaluate(ANONYMOUS, 0.0), Decision)


@login_required
def bare(number: int) -> str:
    return str(number)


@login_required()
def called(number: int) -> str:
    return str(number)


@checkpoint(SessionCheckpoint("logged_in", values_allowed=True).action(fail_url="/", message="Please sign in"))
async def later(number: int) -> str:
    return str(number)


assert_type(bare(1), str)
assert_type(called(1), str)
payload = g.payload
