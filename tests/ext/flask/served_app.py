"""The app that test_servers.py serves for real."""

import os

from flask import Flask, g, request, stream_with_context

from jam import Jam
from jam.ext.flask import Authenticated, JWTExtension, SameOrigin, SessionExtension, checkpoint, current_identity

jam = Jam({"secret": os.environ["SERVED_SECRET"], "store": os.environ["SERVED_STORE"], "https": False})
jam.store.marks("", "", 0)  # a connection that is open when --preload forks the workers

app = Flask(__name__)
JWTExtension(jam, app)
sessions = SessionExtension(jam, app)


@app.get("/")
def index():
    return {"worker": os.getpid()}


@app.post("/sign-in")
@checkpoint(SameOrigin())
def sign_in():
    sessions.sign_in(request.form["name"], {"n": 0})
    return {"token": jam.access_tokens.issue(request.form["name"])}


@app.post("/sign-out-everywhere")
@checkpoint(Authenticated())
def sign_out_everywhere():
    jam.sessions.clear(current_identity.subject)
    jam.access_tokens.revoke_all(current_identity.subject)
    return ""


@app.post("/write/<key>")
@checkpoint(Authenticated())
def write(key):
    jam.update_session(request.cookies["sessionId"], {key: 1})
    return ""


@app.get("/me")
@checkpoint(Authenticated())
def me():
    return {"subject": current_identity.subject, "data": g.payload, "worker": os.getpid()}


@app.get("/me-async")
@checkpoint(Authenticated())
async def me_async():
    return {"subject": current_identity.subject}


@app.get("/stream")
def stream():
    def body():
        yield "hello "
        yield str(current_identity.subject)

    return stream_with_context(body())
