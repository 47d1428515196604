"""A client that a generator made of the API's description, against a real server: what it says is enough to use it."""

import importlib
import subprocess

import pytest
import requests

from tests.ext.flask.accounts.served_blog import CAT
from tests.ext.flask.accounts.serving import blog_served
from tests.processes import PYTHON


@pytest.fixture(scope="module")
def address(secret, tmp_path_factory):
    with blog_served(secret, tmp_path_factory.mktemp("blog"), SERVED_OPEN="1") as (address, _):
        yield address


@pytest.fixture(scope="module")
def generated(address, tmp_path_factory):
    """What imports a module of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(requests.get(f"{address}/auth/openapi.json", timeout=10).content)
    (folder / "settings.yml").write_text("post_hooks: []\n")
    command = [PYTHON, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"]
    command += ["--output-path", "blog_client", "--config", "settings.yml", "--fail-on-warning"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield lambda name: importlib.import_module(f"blog_client.{name}")


@pytest.fixture
def anonymous(generated, address):
    with generated("client").Client(base_url=address, raise_on_unexpected_status=True) as client:
        yield client


@pytest.fixture
def signed_in(generated, address, anonymous):
    credentials = generated("models").Credentials(username="susan", password=CAT)
    pair = generated("api.signing_in.sign_in_for_tokens").sync(client=anonymous, body=credentials)
    with generated("client").AuthenticatedClient(base_url=address, token=pair.access_token) as client:
        yield client


def test_it_signs_in_and_lists_users(generated, signed_in):
    page = generated("api.api.get_users").sync(client=signed_in, page=1, per_page=2)
    assert [user.username for user in page.items] == ["susan", "david"]
    assert page.field_meta.total_items >= 2
    assert page.items[0].email == "susan@example.com"


def test_it_makes_a_token_uses_it_and_revokes_it(generated, address, signed_in):
    wanted = generated("models").APITokenRequest(name="nightly", lifetime=3600.0)
    made = generated("api.api.create_token").sync(client=signed_in, body=wanted)
    assert made.name == "nightly"
    listed = generated("api.api.list_tokens").sync(client=signed_in)
    assert made.id in [one.id for one in listed.items]
    with generated("client").AuthenticatedClient(base_url=address, token=made.token) as script:
        assert generated("api.api.get_user").sync("1", client=script).username == "susan"
        assert generated("api.api.revoke_token").sync_detailed(client=script).status_code == 204
        assert generated("api.api.get_user").sync("1", client=script).code == "api_token_invalid"


def test_it_changes_a_user_and_their_own_fields(generated, signed_in):
    change = generated("models").UserChange()
    change.about_me = "Made by a program."
    changed = generated("api.api.update_user").sync("1", client=signed_in, body=change)
    assert changed.about_me == "Made by a program."


def test_it_knows_errors_as_errors(generated, anonymous):
    wrong = generated("models").Credentials(username="susan", password="wrong")
    error = generated("api.signing_in.sign_in_for_tokens").sync(client=anonymous, body=wrong)
    assert (error.error, error.code) == ("Unauthorized", "bad_credentials")
    unfit = generated("models").RegistrationRequest(
        username="a b", email="x@example.com", password="long enough for this"
    )
    assert generated("api.api.create_user").sync(client=anonymous, body=unfit).code == "username_refused"
