"""Which passwords people may have, and the service that knows the breached ones: a real one, on this machine."""

import hashlib
import logging
import subprocess
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from jam.accounts.breached import PwnedPasswords
from jam.accounts.password_policy import PasswordPolicy
from jam.config import PasswordSettings
from jam.errors import ConfigError, JamError, PasswordRefused
from jam.events import BreachCheckFailed, Events
from jam.testing import MovableClock
from tests.own_servers import free_port

GOOD = "correct horse battery staple"
PATIENCE = 60


def policy_of(*, clock=None, events=None, app_name="", breached=None, refuse_when_unknown=False, **options):
    return PasswordPolicy(
        PasswordSettings(**options),
        app_name=app_name,
        breached=breached,
        refuse_when_unknown=refuse_when_unknown,
        clock=clock or MovableClock(),
        events=events or Events(),
    )


@pytest.fixture(scope="module")
def policy():
    return policy_of()


@pytest.fixture(scope="module")
def lenient():
    return policy_of(min_length=8)


def refusal(policy, password, **about):
    with pytest.raises(PasswordRefused) as caught:
        policy.check(password, **about)
    assert (caught.value.code, caught.value.status) == ("password_refused", 400)
    return caught.value.message


# -- length and characters -----------------------------------------------------------------------------------


def test_asvs_6_2_1_a_password_has_fifteen_characters_unless_the_app_says_otherwise(policy, lenient):
    assert "at least 15 characters" in refusal(policy, "kxqjzvwmplfbtr")
    policy.check("kxqjzvwmplfbtrh")
    assert "at least 8 characters" in refusal(lenient, "kxqjzvw")
    lenient.check("kxqjzvwm")


def test_asvs_6_2_1_characters_are_counted_and_not_bytes(policy):
    assert "too short" in refusal(policy, "🙂👍🎉🚀🔥🌊🌋")
    assert "too short" in refusal(policy, "éàüñçøåêîôûëïž")


def test_asvs_6_2_1_characters_are_counted_in_the_form_in_which_they_are_kept(policy):
    decomposed = unicodedata.normalize("NFD", "éàüñçêîôûëïžšč")
    assert (len(decomposed), len(unicodedata.normalize("NFC", decomposed))) == (28, 14)
    assert "too short" in refusal(policy, decomposed)


@pytest.mark.parametrize(
    "password",
    [
        "kxqjzvwmplfbtrh",
        "KXQJZVWMPLFBTRH",
        "740216993817552",
        GOOD,
        "une crème brûlée à volonté",
        "🙂👍🎉🚀🔥🌊🌋🌍🍎🍌🍇🍓🥝🍑🍍",
        "👩‍👩‍👧‍👦👨‍🚀👩🏽‍🌾🧑‍🎤👩‍🔬🧙‍♂️",
        "天地玄黄宇宙洪荒日月盈昃辰宿列张",
        "съешь ещё этих булок",
        "בראשית ברא אלהים",
        " leading and trailing spaces ",
        "<script>alert('x')</script>",
        "'; DROP TABLE users; -- %s {0} \\",
    ],
)
def test_asvs_6_2_5_no_kind_of_character_is_asked_for_or_forbidden(policy, password):
    policy.check(password)


@pytest.mark.parametrize("length", [64, 128, 1024])
def test_asvs_6_2_9_long_passwords_are_accepted(policy, length):
    text = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(16))
    assert len(text) == 1024
    policy.check(text[:length])


def test_a_password_that_is_too_long_is_refused_before_it_costs_anything(policy):
    assert "at most 1024 characters" in refusal(policy, GOOD * 37)
    before = time.process_time()
    refusal(policy, "x" * 10_000_000)
    assert time.process_time() - before < 1


@pytest.mark.parametrize("password", ["\ud800" + GOOD, GOOD + "\udfff", "\ud83d\ude42" + GOOD], ids=ascii)
def test_half_a_character_is_refused(policy, password):
    assert "not proper text" in refusal(policy, password)


@pytest.mark.parametrize("char", ["\u0378", "\uffff", "\U000e0080"], ids=ascii)
def test_a_character_that_unicode_has_not_defined_is_refused(policy, char):
    assert "not known" in refusal(policy, GOOD + char)


@pytest.mark.parametrize("char", ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x85"], ids=ascii)
def test_control_characters_are_refused(policy, char):
    assert "control character" in refusal(policy, GOOD + char)


@pytest.mark.parametrize("password", [" " * 15, " \u00a0\u2003" * 5, "\u200b\u200d" * 8, "\u2028" * 20], ids=ascii)
def test_a_blank_password_is_refused(policy, password):
    assert "blank" in refusal(policy, password)


@pytest.mark.parametrize("password", [None, 7, b"correct horse battery staple", [GOOD], {"$ne": ""}, True], ids=repr)
def test_asvs_15_3_5_what_is_no_text_is_refused(policy, password):
    assert refusal(policy, password) == "A password is text."


# -- common passwords ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "password123456789",
        "Password12345678!",
        "P@ssw0rdP@ssw0rd",
        "passwordpassword",
        "qwertyuiopasdfghjkl",
        "qwertyuiop123456789",
        "1qaz2wsx3edc4rfv5tgb",
        "!QAZ2wsx#EDC4rfv",
        "1qaz@WSX3edc$RFV",
        "1q2w3e4r5t6y7u8i9o0p",
        "zaq12wsxcde34rfv",
        "111111111111111",
        "123456789012345",
        "987654321987654321",
        "abcdefghijklmnop",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "abc123abc123abc123",
        "liverpoolfootballclub",
        "manchesterunited",
        "iloveyouforever",
        "iloveyou1234567",
        "trustno1trustno1",
        "administrator1234",
        "drowssapdrowssap",
        "01012001 01012001 01012001",
    ],
)
def test_asvs_6_2_4_common_passwords_are_refused(policy, password):
    assert "easy to guess" in refusal(policy, password)


def test_asvs_6_2_4_the_commonest_passwords_that_are_long_enough_are_refused(lenient):
    common = [word for word in FREQUENCY_LISTS["passwords"] if len(word) >= 8][:3000]
    assert len(common) == 3000
    for word in common:
        refusal(lenient, word)
    for word in common[:500]:
        refusal(lenient, word.capitalize() + "!")


def test_asvs_6_2_4_common_passwords_that_are_very_long_are_refused(policy):
    long = [word for words in FREQUENCY_LISTS.values() for word in words if len(word) >= 15]
    assert len(long) > 10
    for word in long:
        refusal(policy, word)


@pytest.mark.parametrize("password", ["password1", "football", "Sunshine1", "12345678", "qwertyui", "p@ssw0rd"])
def test_asvs_6_2_4_common_passwords_are_refused_where_short_ones_are_allowed(lenient, password):
    assert "easy to guess" in refusal(lenient, password)


def test_a_common_beginning_that_is_longer_than_what_is_judged_is_refused(policy):
    assert "easy to guess" in refusal(policy, "password" * 9 + "kxqjzvwm")
    assert "easy to guess" in refusal(policy, "password" * 20)
    policy.check(GOOD + "password" * 20)


READINGS = '4@8({[<3691!|70$5+%2p4ssw0rd"'


@pytest.mark.parametrize(
    "password",
    [
        (READINGS * 3)[:72],
        READINGS + "".join(f"p4{sign}{sign}w0rd" for sign in "$5") * 3,
        "17116|7||117717||171p4ssw0rdp4ssw0rdp4ssw0rdp4ssw0rdp4fsw0rdp4s1w0rdp4ss",
        "S[D[9796S+RuD[r7g=79kr976=krCD6[89rCS[D[9796S+R9D[r7g=79kr976qkrCD6[g9rC",
        "19" * 500 + "x",
        "İ" * 72,
        "a\u0301\u0323" * 340,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_no_password_is_slow_to_judge(lenient, password):
    """What zxcvbn alone takes seconds for; in time of this thread, of which other tests take nothing."""
    times = []
    for _ in range(3):
        before = time.thread_time()
        try:
            lenient.check(password)
        except PasswordRefused:
            pass
        times.append(time.thread_time() - before)
    assert min(times) < 0.5


# -- words of the service and of the person ------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "my marmalade staple horse",
        "my MarmaLade staple horse",
        "my m@rm4l4d3 staple horse",
        "my ｍａｒｍａｌａｄｅ staple",
    ],
)
def test_asvs_6_2_11_context_words_are_refused_however_they_are_written(password):
    policy = policy_of(context_words=("Marmalade",))
    assert "a word that belongs to this service" in refusal(policy, password)
    policy.check(password.replace("m", "q").replace("M", "q").replace("ｍ", "q"))


@pytest.mark.parametrize("written", ["1i1y", "lily", "L!LY", "7i|y", "i1iy"])
def test_signs_that_look_like_two_letters_are_read_as_either(written):
    policy = policy_of(context_words=("lily",))
    if written == "i1iy":
        policy.check(f"staple {written} battery horse")
    else:
        refusal(policy, f"staple {written} battery horse")


def test_a_context_word_with_signs_in_it_is_found_as_letters():
    refusal(policy_of(context_words=("h4ck3r",)), "staple hacker battery horse")


@pytest.mark.parametrize("word", ["C++", "a.b", "(x)", "^.*$", "[", "豊田", "ß-Straße"], ids=ascii)
def test_a_context_word_is_taken_as_it_is(word):
    if len(word) < 2:
        with pytest.raises(ConfigError):
            policy_of(context_words=(word,))
        return
    policy = policy_of(context_words=(word,))
    refusal(policy, f"staple {word} battery horse")
    policy.check(GOOD)


@pytest.mark.parametrize("word", ["", " ", "a", " a "])
def test_a_context_word_that_is_in_every_password_is_a_mistake(word):
    with pytest.raises(ConfigError, match=r"passwords\.context_words"):
        policy_of(context_words=("marmalade", word))


def test_the_apps_name_is_a_context_word_unless_it_is_short():
    password = "staple jamjar battery jam"
    assert "a word that belongs to this service" in refusal(policy_of(app_name="JamJar"), password)
    policy_of(app_name="jam").check(password)


@pytest.mark.parametrize(
    "password", ["staple alice42 horse", "staple x ALICE42", "staple @1ic34z battery", "alice42alice42x"]
)
def test_the_user_name_is_refused(policy, password):
    assert "your user name" in refusal(policy, password, username="Alice42")
    policy.check("staple battery horse x", username="Alice42")


def test_a_short_name_is_in_too_many_words_to_be_refused(policy):
    policy.check(GOOD, username="cor", email="bat@hor.example")
    policy.check(GOOD, username="", email="")


@pytest.mark.parametrize(
    "password", ["staple alice.smith horse", "staple alice.smith+jam", "staple mailhost horse", "staple initech horse"]
)
def test_the_parts_of_the_email_address_are_refused(policy, password):
    message = refusal(policy, password, email="Alice.Smith+jam@mailhost.Initech.example")
    assert "your e-mail address" in message


def test_the_last_part_of_an_address_is_everybodys(policy):
    policy.check("staple information battery", email="alice@initech.info")
    refusal(policy, "staple localhost battery", email="root@localhost")


@pytest.mark.parametrize("email", ["no address", "@", "alice@", "@initech.example", "a@b@initech.example", "." * 300])
def test_what_is_no_address_does_no_harm(policy, email):
    policy.check(GOOD, email=email)


def test_a_name_that_is_longer_than_any_costs_nothing(policy):
    before = time.process_time()
    policy.check(GOOD, username="\u0301\u0323" * 1_000_000, email="\u0301\u0323" * 1_000_000 + "@x.example")
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    "about", [{"username": "correct"}, {"email": "x@horse.example"}, {"email": "staple@x.example"}]
)
def test_asvs_16_2_5_a_refusal_repeats_neither_the_password_nor_the_word(policy, about):
    message = refusal(policy, GOOD, **about)
    assert not any(word in message for word in [*GOOD.split(), *about.values()])


# -- breaches ------------------------------------------------------------------------------------------------


def test_asvs_6_2_12_a_breached_password_is_refused():
    asked = []
    policy = policy_of(breached=lambda password: asked.append(password) or password == GOOD)
    assert "known from a data breach" in refusal(policy, GOOD)
    policy.check(GOOD + "r")
    assert asked == [GOOD, GOOD + "r"]


def test_nobody_is_asked_about_a_password_that_is_refused_anyway():
    asked = []
    policy = policy_of(breached=asked.append)
    for password in ("short", "passwordpassword", GOOD + "\n"):
        refusal(policy, password)
    refusal(policy, GOOD, username="staple")
    assert asked == []


def failing(password):
    raise RuntimeError(f"cannot tell about {password}")


def test_asvs_6_2_12_a_password_passes_while_nobody_can_tell_and_that_is_heard(clock, caplog):
    heard, events = [], Events()
    events.subscribe(heard.append)
    policy_of(breached=failing, clock=clock, events=events).check(GOOD, subject="alice")
    assert heard == [BreachCheckFailed(at=clock.now, subject="alice")]
    assert [(record.levelno, record.exc_info) for record in caplog.records] == [(logging.WARNING, None)]
    assert "RuntimeError" in caplog.text
    assert "correct" not in caplog.text + repr(heard)


def test_asvs_6_2_12_an_app_may_refuse_what_nobody_can_tell(clock, caplog):
    heard, events = [], Events()
    events.subscribe(heard.append)
    policy = policy_of(breached=failing, refuse_when_unknown=True, clock=clock, events=events)
    with pytest.raises(PasswordRefused, match="try again later") as caught:
        policy.check(GOOD)
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert heard == [BreachCheckFailed(at=clock.now, subject=None)]
    assert "correct" not in caplog.text + str(caught.value)


def test_a_password_passes_while_nobody_can_tell_though_nobody_listens():
    policy_of(breached=failing).check(GOOD)


class Breaches:
    """A service that knows passwords, and does worse on demand; ``asked`` is what it was asked."""

    def __init__(self):
        self.asked, self.known, self.answer = [], {}, None
        self.go_on = threading.Event()
        breaches = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                breaches.asked.append((self.path, dict(self.headers.items())))
                if breaches.answer is not None:
                    breaches.answer(self)
                    return
                self.reply(200, breaches.range(self.path.rpartition("/")[2]))

            def reply(self, status, body, length=None, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/range/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def range(self, prefix):
        lines = [f"{hashlib.sha256(bytes([n])).hexdigest()[:35].upper()}:{n}" for n in range(1, 9)]
        for password, count in self.known.items():
            digest = hashlib.sha1(password.encode()).hexdigest().upper()
            if digest.startswith(prefix):
                lines.insert(len(lines) // 2, f"{digest[5:]}:{count}")
        return "\r\n".join(lines).encode()

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(PATIENCE)


@pytest.fixture
def breaches():
    service = Breaches()
    yield service
    service.close()


def trouble(breaches, timeout=2.0):
    with pytest.raises(JamError) as caught:
        PwnedPasswords(breaches.url, timeout=timeout)(GOOD)
    error = caught.value
    assert (type(error), error.code, error.__cause__, error.__suppress_context__) == (
        JamError,
        "breach_check_failed",
        None,
        True,
    )
    assert not any(secret in str(error) for secret in (GOOD, sha1_of(GOOD), sha1_of(GOOD)[:5]))
    return error.hint


def sha1_of(password):
    return hashlib.sha1(password.encode()).hexdigest().upper()


def test_the_service_says_whether_it_knows_a_password(breaches):
    breaches.known = {GOOD: 3, "pässword": 1}
    service = PwnedPasswords(breaches.url)
    assert [service(password) for password in (GOOD, "pässword", GOOD + "r")] == [True, True, False]


def test_only_the_beginning_of_the_hash_leaves_the_process(breaches):
    breaches.known = {GOOD: 3}
    assert PwnedPasswords(breaches.url)(GOOD) is True
    [(path, headers)] = breaches.asked
    assert path == f"/range/{sha1_of(GOOD)[:5]}"
    assert headers["Add-Padding"] == "true"
    assert sha1_of(GOOD)[5:] not in repr(headers)


def test_an_entry_that_counts_nothing_is_padding(breaches):
    breaches.known = {GOOD: 0}
    assert PwnedPasswords(breaches.url)(GOOD) is False


def test_the_case_of_the_digits_and_the_kind_of_line_ends_do_not_matter(breaches):
    breaches.answer = lambda handler: handler.reply(
        200, sha1_of(GOOD)[5:].lower().encode() + b":1\n" + b"A" * 35 + b":2\n"
    )
    assert PwnedPasswords(breaches.url.removesuffix("/"))(GOOD) is True
    assert breaches.asked[0][0] == f"/range/{sha1_of(GOOD)[:5]}"


def test_an_empty_answer_knows_nothing(breaches):
    breaches.answer = lambda handler: handler.reply(200, b"")
    assert PwnedPasswords(breaches.url)(GOOD) is False


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_asvs_15_3_2_no_redirect_is_followed(breaches, status):
    breaches.known = {GOOD: 3}
    breaches.answer = lambda handler: handler.reply(status, b"", Location=f"{breaches.url}other/")
    assert f"status {status}" in trouble(breaches)
    assert len(breaches.asked) == 1


@pytest.mark.parametrize("status", [204, 206, 400, 401, 404, 429, 500, 503])
def test_any_other_answer_is_none(breaches, status):
    breaches.answer = lambda handler: handler.reply(status, b"")
    trouble(breaches)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Sign in to the network</html>",
        b"A" * 35,
        b"A" * 35 + b":",
        b"A" * 35 + b":-1",
        b"A" * 34 + b":1",
        b"G" * 35 + b":1",
        b"A" * 35 + b":1\r\n\r\n" + b"A" * 35 + b":1",
        b"A" * 35 + b":" + b"9" * 5000,
        b"\0" * 100,
        b"\xff\xfe" * 100,
        "А".encode() * 35 + b":1",
    ],
    ids=lambda body: ascii(body[:20]),
)
def test_an_answer_that_is_no_list_is_none(breaches, body):
    breaches.answer = lambda handler: handler.reply(200, body)
    assert "ValueError" in trouble(breaches)


def test_half_an_answer_is_none(breaches):
    line = b"A" * 35 + b":1\r\n"
    breaches.answer = lambda handler: handler.reply(200, line, length=2 * len(line))
    assert "ValueError" in trouble(breaches)


def test_an_answer_longer_than_any_is_none(breaches):
    line = b"A" * 35 + b":1\r\n"
    breaches.answer = lambda handler: handler.reply(200, line * (1024 * 1024 // len(line) - 1))
    assert PwnedPasswords(breaches.url, timeout=PATIENCE)(GOOD) is False

    def too_long(handler):
        try:
            handler.reply(200, line * (1024 * 1024 // len(line) + 1))
        except OSError:
            pass

    breaches.answer = too_long
    assert "ValueError" in trouble(breaches, timeout=PATIENCE)


def test_an_answer_that_drips_is_not_waited_for(breaches):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while not breaches.go_on.wait(0.02):
                handler.wfile.write(b"A")
        except OSError:
            pass

    breaches.answer = drip
    before = time.monotonic()
    assert "ValueError" in trouble(breaches, timeout=0.3)
    assert time.monotonic() - before < 10


def test_silence_is_not_waited_for(breaches):
    breaches.answer = lambda handler: breaches.go_on.wait(PATIENCE)
    assert "TimeoutError" in trouble(breaches, timeout=0.2)


def test_no_proper_http_is_no_answer(breaches):
    breaches.answer = lambda handler: handler.wfile.write(b"220 smtp.example ready\r\n")
    assert "BadStatusLine" in trouble(breaches)


def test_a_service_that_is_not_there_cannot_be_asked():
    with pytest.raises(JamError) as caught:
        PwnedPasswords(f"http://127.0.0.1:{free_port()}/")(GOOD)
    assert "127.0.0.1" in caught.value.hint
    assert "ConnectionRefusedError" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "http://api.pwnedpasswords.com/range/", "ftp://127.0.0.1/", "file:///etc/passwd", "//host/", "host/range", "",
        "https://", "https://user@host/", "https://user:secret@host/", "https://host/?a=b", "https://host/#a",
        "https://host:port/", "https://[::1/", "http://127.0.0.1.example/", "http://localhost.example/",
    ],
)  # fmt: skip
def test_the_service_is_reached_by_https_or_on_this_machine(url):
    with pytest.raises(ConfigError) as caught:
        PwnedPasswords(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host/range/", "http://localhost:8080", "http://[::1]/x", "http://127.9.9.9/"])
def test_places_that_may_be_asked(url):
    PwnedPasswords(url)


def test_the_policy_asks_the_service(breaches, caplog):
    breaches.known = {GOOD: 3}
    policy = policy_of(breached=PwnedPasswords(breaches.url), refuse_when_unknown=True)
    assert "data breach" in refusal(policy, GOOD)
    policy.check(GOOD + "r")
    breaches.answer = lambda handler: handler.reply(500, b"")
    assert "try again later" in refusal(policy, GOOD)
    assert "status 500" in caplog.text
    assert not any(secret in caplog.text for secret in (GOOD, sha1_of(GOOD)[:5]))


# -- whatever it is ------------------------------------------------------------------------------------------


LOOKALIKES = st.text("4@8({[<3691!|70$5+%2p4sw0rdaeiolt1234567890", max_size=100)


@settings(max_examples=300, deadline=3000)
@given(
    st.one_of(
        st.text(), st.text(min_size=15, max_size=100), LOOKALIKES, st.text("İßﬁ٣²ǅ﷽🙂1", min_size=8, max_size=80)
    ),
    st.none() | st.text(),
    st.none() | st.text() | st.emails(),
)
def test_any_text_is_either_accepted_or_refused(lenient, password, username, email):
    try:
        lenient.check(password, username=username, email=email)
    except PasswordRefused:
        return
    assert len(unicodedata.normalize("NFC", password)) >= 8


def test_many_threads_may_ask_at_once(lenient):
    passwords = ["kxqjzvwm", "passwordpassword", GOOD, "12345678901"] * 10

    def judge(password):
        try:
            lenient.check(password)
        except PasswordRefused:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(judge, passwords)) == [True, False, True, False] * 10


def test_without_zxcvbn_the_extra_is_named():
    code = """
import sys, time
sys.modules["zxcvbn"] = None
from jam.accounts.password_policy import PasswordPolicy
from jam.config import PasswordSettings
from jam.errors import ConfigError
from jam.events import Events
try:
    PasswordPolicy(PasswordSettings(), clock=time.time, events=Events())
except ConfigError as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("pip install jam-auth[accounts]\n", "")
