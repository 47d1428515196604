"""The smallest protected app: flask --app examples/quickstart.py run"""

from flask import Flask, g

from jam import Jam
from jam.ext.flask import HasRole, JWTExtension, checkpoint

app = Flask(__name__)
jam = Jam()
JWTExtension(jam, app)


@app.get("/reports")
@checkpoint(HasRole("editor"))
def reports() -> dict[str, str]:
    return {"for": g.payload["sub"]}
