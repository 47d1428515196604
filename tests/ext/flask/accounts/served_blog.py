"""The app that test_seeds_over_http.py and test_generated_client.py serve for real: a model of its own, as blogs have."""

import os
from datetime import UTC, datetime

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from werkzeug.security import generate_password_hash

from jam import Jam
from jam.accounts.sql_users import SQLUsers
from jam.ext.flask.accounts import AccountsExtension

db = SQLAlchemy()
CAT = "cat"


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    username = db.Column(db.String(64), index=True, unique=True)
    email = db.Column(db.String(120), index=True, unique=True)
    password_hash = db.Column(db.String(128))
    about_me = db.Column(db.String(140))
    last_seen = db.Column(db.DateTime, default=lambda: datetime.now(UTC).replace(tzinfo=None))


def with_avatar(account, data):
    return {**data, "_links": {**data["_links"], "avatar": f"https://avatars.example/{account.subject}"}}


def make_app():
    """The app, made anew in every worker."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["SERVED_DATABASE"]
    app.config["JAM_ACCOUNTS_BASE_URL"] = "https://app.example"
    app.config["JAM_ACCOUNTS_OPEN_REGISTRATION"] = os.environ.get("SERVED_OPEN") == "1"
    app.config["JAM_THROTTLING_MAILS"] = app.config["JAM_THROTTLING_MAILS_PER_ADDRESS"] = 1000
    db.init_app(app)
    jam = Jam({"secret": os.environ["SERVED_SECRET"], "store": os.environ["SERVED_STORE"], "https": False})
    users = SQLUsers(User, db, profile=("about_me", "last_seen"), writable=("about_me",))
    AccountsExtension(jam, app, users=users, represent=with_avatar)
    app.add_url_rule("/", "index", dict)
    return app


def settle(app):
    """The people that the blog has from before it had Jam."""
    with app.app_context():
        db.create_all()
        for name in ("susan", "david"):
            hashed = generate_password_hash(CAT, "pbkdf2:sha256:1000")
            db.session.add(User(username=name, email=f"{name}@example.com", password_hash=hashed))
        db.session.commit()
        db.engine.dispose()


def password_hash_of(app, name):
    with app.app_context():
        found = db.session.execute(db.select(User.password_hash).filter_by(username=name)).scalar_one()
        db.session.remove()
        db.engine.dispose()
    return found
