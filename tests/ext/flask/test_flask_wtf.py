"""Flask-WTF's forms and its CSRFProtect on Jam's ``flask.session``, beside Jam's own rule."""

import re

import pytest
from flask import flash, get_flashed_messages, render_template_string
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import StringField
from wtforms.validators import InputRequired

from jam.ext.flask import SessionExtension, UserMixin, current_user, login_required, login_user
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN

PAGE = '<form method="post">{{ form.hidden_tag() }}{{ form.title }}</form>'


class PostForm(FlaskForm):
    title = StringField(validators=[InputRequired()])


class User(UserMixin):
    def __init__(self, name):
        self.id = name


@pytest.fixture
def blog(app, jam):
    SessionExtension(jam, app, flask_session=True).user_loader(User)
    app.posts = []

    @app.post("/sign-in/<name>")
    def sign_in(name):
        login_user(User(name))
        return {}

    @app.route("/post", methods=["GET", "POST"])
    @login_required
    def post():
        form = PostForm()
        if form.validate_on_submit():
            app.posts.append((current_user.id, form.title.data))
            flash("Posted.")
            return {"messages": get_flashed_messages()}
        return render_template_string(PAGE, form=form) if not form.errors else (form.errors, 400)

    return app


def token_in(page):
    return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)[1]


@pytest.fixture
def browser(blog):
    browser = blog.test_client()
    browser.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    browser.post("/sign-in/alice")
    return browser


def test_a_form_is_posted_with_the_token_that_its_page_showed(blog, browser):
    token = token_in(browser.get("/post"))
    assert browser.post("/post", data={"title": "Plums", "csrf_token": token}).json == {"messages": ["Posted."]}
    assert blog.posts == [("alice", "Plums")]


def test_a_form_without_its_token_is_refused_by_flask_wtf(blog, browser):
    browser.get("/post")
    assert "csrf_token" in browser.post("/post", data={"title": "Plums"}).json
    assert blog.posts == []


def test_two_tabs_show_forms_that_are_both_good(blog, browser):
    tokens = [token_in(browser.get("/post")) for _ in range(2)]
    for token in tokens:
        assert browser.post("/post", data={"title": "Plums", "csrf_token": token}).status_code == 200
    assert len(blog.posts) == 2


def test_a_form_of_before_the_sign_in_is_good_after_it(blog):
    """Its token was kept in a session of nobody's, which the sign-in carries over."""

    @blog.get("/open")
    def open_page():
        return render_template_string(PAGE, form=PostForm())

    browser = blog.test_client()
    browser.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    token = token_in(browser.get("/open"))
    browser.post("/sign-in/alice")
    assert browser.post("/post", data={"title": "Plums", "csrf_token": token}).status_code == 200


def test_another_persons_form_is_refused(blog, browser):
    mallory = blog.test_client()
    mallory.post("/sign-in/mallory", headers=SAME_ORIGIN)
    token = token_in(mallory.get("/post", headers=SAME_ORIGIN))
    assert browser.post("/post", data={"title": "Plums", "csrf_token": token}).status_code == 400
    assert blog.posts == []


def test_another_sites_page_does_not_get_as_far_as_the_form(blog, browser):
    token = token_in(browser.get("/post"))
    answer = browser.post("/post", data={"title": "Plums", "csrf_token": token}, headers=CROSS_SITE)
    assert answer.json["code"] == "csrf_failed"
    assert blog.posts == []


def test_csrf_protect_guards_views_without_forms(blog):
    CSRFProtect(blog)

    @blog.get("/open")
    def open_page():
        return render_template_string(PAGE, form=PostForm())

    browser = blog.test_client()
    browser.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    token = token_in(browser.get("/open"))
    assert browser.post("/sign-in/bob").status_code == 400
    assert browser.post("/sign-in/bob", headers={"X-CSRFToken": token}).status_code == 200
