"""What an administrator at a shell has to do with: a terminal, a post office, and what may be shown."""

import os
import pty
import select
import subprocess
import time

import sqlalchemy as sa

from jam.accounts.sql_users import SQLUsers

PASSWORD = "correct horse battery staple"
PATIENCE = 30


class Post:
    """A mailer that keeps what it is given, unless it is told to fail."""

    def __init__(self):
        self.mails, self.failure = [], None

    def send(self, mail):
        if self.failure is not None:
            raise self.failure
        self.mails.append(mail)


def is_one_line(text):
    return text.startswith("Error: ") and text.endswith("\n") and text.count("\n") == 1


def is_harmless(text):
    """Nothing in it that a terminal would do, instead of show."""
    return all(one.isprintable() or one == "\n" for one in text)


def events(jam, kind):
    heard = []
    jam.events.subscribe(lambda event: heard.append(event) if isinstance(event, kind) else None)
    return heard


def people_without_roles(tmp_path):
    base = sa.orm.declarative_base()

    class User(base):
        __tablename__ = "people"
        id = sa.Column(sa.Integer, primary_key=True)
        username = sa.Column(sa.String(64), unique=True, nullable=False)
        email = sa.Column(sa.String(254), unique=True)
        password_hash = sa.Column(sa.String(255))

    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite3", poolclass=sa.pool.NullPool)
    base.metadata.create_all(engine)
    return SQLUsers(User, engine)


def at_a_terminal(shell, arguments, answers):
    """What a terminal shows while a person types answers into it; and the exit status."""
    places, command = shell
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*command, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **places
        )
        os.close(theirs)
        return _typed(process, ours, list(answers)), process.wait(PATIENCE)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


def _typed(process, terminal, answers):
    seen, asked, until = "", "", time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text = os.read(terminal, 4096).decode()
            except OSError:  # the other end is closed
                return seen
            seen, asked = seen + text, asked + text
        elif process.poll() is not None:
            return seen
        if answers and answers[0][0] in asked:
            asked = ""
            os.write(terminal, answers.pop(0)[1].encode())
    raise AssertionError(f"The program waits for something: {seen}")
