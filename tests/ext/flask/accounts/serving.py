"""Starts the blog on a real server, with real worker processes, on a database of its own."""

import contextlib
import os
from pathlib import Path
from unittest import mock

from jam.stores import open_store
from tests.ext.flask.accounts import served_blog
from tests.processes import PYTHON, free_port, serving

HERE = Path(__file__).parent


@contextlib.contextmanager
def blog_served(secret, folder, database_url=None, **more):
    """Yields where the blog is, and the blog itself for a look at its database."""
    environment = {
        "SERVED_SECRET": secret,
        "SERVED_DATABASE": database_url or f"sqlite:///{folder}/blog.sqlite3",
        "SERVED_STORE": database_url or f"sqlite:///{folder}/jam.sqlite3",
        **more,
    }
    if database_url is not None:
        with contextlib.closing(open_store(database_url)) as store:
            store.create_tables()
    with mock.patch.dict(os.environ, environment):
        app = served_blog.make_app()
    served_blog.settle(app)
    address = f"http://127.0.0.1:{free_port()}"
    command = [PYTHON, "-m", "gunicorn", "--bind", address.removeprefix("http://"), "--workers", "2", "--threads", "4"]
    command += ["served_blog:make_app()"]
    with serving(command, url=address, cwd=HERE, env={**os.environ, **environment}):
        yield address, app
