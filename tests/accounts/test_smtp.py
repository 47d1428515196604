"""Mails by SMTP: to a real server with and without TLS, and to broken ones."""

import contextlib
import datetime as dt
import email
import email.policy
import os
import socket
import ssl
import sys
import threading
import time

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jam.accounts.mail import Mail, check_address, open_mailer
from jam.accounts.smtp import SMTPMailer
from jam.config import MailSettings, Secret
from jam.errors import ConfigError, InvalidValue, MailNotSent
from tests.processes import free_port

SENDER = "Example <no-reply@app.example>"
USER, PASSWORD = "mailer", "s3cret/pa:ss@word"
LINK = "https://app.example/reset#Zm9vYmFy"
MAIL = Mail(to="alice@example.org", subject="Set a new password", text=f"Hello,\n\n{LINK}\n")
PATIENCE = 20


# -- servers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The contexts of a server and of a client that trusts it: for localhost, and not for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


class Server(Controller):
    """A server that is stopped when it has noticed that its clients have gone: before, it would leave sockets open."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.connections = []

    def factory(self):
        self.connections.append(super().factory())
        return self.connections[-1]

    def close(self):
        until = time.monotonic() + PATIENCE
        while any(one.transport is not None for one in self.connections) and time.monotonic() < until:
            time.sleep(0.001)
        self.stop()


class Mailbox:
    """What a server does with mails: it keeps them, unless it refuses."""

    def __init__(self):
        self.mails, self.logins, self.secured, self.greetings = [], [], [], []
        self.recipient = self.data = "250 OK"

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        self.greetings.append(hostname)
        return responses

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if self.recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server, session, envelope):
        if self.data.startswith("250"):
            self.secured.append(session.ssl is not None or server._tls_protocol is not None)
            self.mails.append(envelope)
        return self.data

    def authenticate(self, server, session, envelope, mechanism, credentials):
        self.logins.append((credentials.login.decode(), credentials.password.decode()))
        return AuthResult(success=self.logins[-1] == (USER, PASSWORD), handled=False)

    def message(self):
        """The one mail that came."""
        (envelope,) = self.mails
        return email.message_from_bytes(envelope.content, policy=email.policy.default)


@pytest.fixture
def serve():
    """Starts a server; returns its port and its mailbox."""
    with contextlib.ExitStack() as stack:

        def serve(**options):
            box = Mailbox()
            if options.get("auth_required"):
                options["authenticator"] = box.authenticate
            controller = Server(box, hostname="127.0.0.1", port=free_port(), **options)
            controller.start()
            stack.callback(controller.close)
            box.greetings.clear()
            return controller.port, box

        yield serve


@pytest.fixture
def mailer(certificate):
    def mailer(port, **options):
        given = {"sender": SENDER, "tls": "starttls", "timeout": PATIENCE, "context": certificate[1], **options}
        return SMTPMailer(given.pop("host", "localhost"), port, **given)

    return mailer


def plain(port, **options):
    return SMTPMailer("127.0.0.1", port, **{"sender": SENDER, "tls": "none", "timeout": PATIENCE, **options})


@contextlib.contextmanager
def scripted(talk):
    """A server that talks as it is told, one connection after the other; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(PATIENCE)
                    talk(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def answering(*replies, then=None):
    """Talk that answers every line with the next reply, and hangs up after the last one."""

    def talk(connection):
        with connection.makefile("rb") as lines:
            for number, reply in enumerate(replies):
                if number:
                    lines.readline()
                connection.sendall(reply)
            if then is not None:
                then(connection, lines)

    return talk


def not_sent(mailer, *, permanent=False, mail=MAIL):
    with pytest.raises(MailNotSent) as caught:
        mailer.send(mail)
    error = caught.value
    for secret in (PASSWORD, USER, LINK, "Hello", mail.to):
        assert secret not in f"{error} {error!r} {error.hint}"
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    assert (error.status, error.code, error.permanent) == (503, "mail_not_sent", permanent)
    return error.hint


# -- headers ----------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.text(max_size=40) | st.from_regex(r"[!-~]{1,20}@[!-~]{1,20}", fullmatch=True))
@example("a@x.org,b@x.org")
@example("=?utf-8?q?a=0d=0aBcc:_b?=@x.org")
@example(".@0")
def test_an_address_that_is_taken_stands_in_a_header_alone(address):
    try:
        check_address(address)
        message = plain(1)._message(Mail(to=address, subject="Hi", text="Hi"), address)
    except InvalidValue:
        return
    read = email.message_from_bytes(message.as_bytes(policy=email.policy.SMTPUTF8), policy=email.policy.SMTPUTF8)
    assert sorted(read.keys()) == sorted(
        ["To", "From", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
         "MIME-Version"]
    )  # fmt: skip
    assert "\r" not in str(read["To"])
    assert "\n" not in str(read["To"])


@settings(max_examples=300)
@given(st.text(max_size=255))
def test_a_subject_that_is_taken_comes_out_as_it_went_in(subject):
    try:
        mail = Mail(to="alice@example.org", subject=subject, text="Hi")
    except InvalidValue:
        return
    read = email.message_from_bytes(plain(1)._message(mail, mail.to).as_bytes(), policy=email.policy.default)
    assert len(read.keys()) == 9
    assert "\n" not in read["Subject"]
    assert "\r" not in read["Subject"]


# -- sending ------------------------------------------------------------------------------------------------


def test_a_mail_arrives(serve, mailer, certificate):
    port, box = serve(tls_context=certificate[0], require_starttls=True)
    mailer(port).send(MAIL)
    (envelope,) = box.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@app.example", ["alice@example.org"])
    message = box.message()
    assert (message["To"], message["From"], message["Subject"]) == (MAIL.to, SENDER, MAIL.subject)
    assert message.get_content().replace("\r\n", "\n") == MAIL.text
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@app.example>")
    sent_at = message["Date"].datetime
    assert abs((dt.datetime.now(dt.UTC) - sent_at).total_seconds()) < PATIENCE


def test_two_mails_have_different_names(serve):
    port, box = serve()
    mailer = plain(port)
    mailer.send(MAIL)
    mailer.send(MAIL)
    names = [email.message_from_bytes(one.content)["Message-ID"] for one in box.mails]
    assert len(set(names)) == 2


def test_letters_of_every_script_arrive(serve):
    port, box = serve()
    subject, text = (
        "Jörgs neues Paßwort 🔑 " + "ü" * 100,
        "Grüße, 您好, 🙂\n" + "ä" * 2000 + f"\n.\n..\nFrom here\n{LINK}\n",
    )
    plain(port, sender="Jäm, Inc. <no-reply@app.example>".replace("Jäm, Inc.", '"Jäm, Inc."')).send(
        Mail(to="alice@example.org", subject=subject, text=text)
    )
    message = box.message()
    assert box.mails[0].content.isascii()
    assert message["Subject"] == subject
    assert message["From"].addresses[0].display_name == "Jäm, Inc."
    assert message.get_content().replace("\r\n", "\n") == text
    assert max(map(len, box.mails[0].content.split(b"\r\n"))) <= 998


def test_a_server_that_takes_seven_bits_is_sent_no_more(serve):
    port, box = serve()
    plain(port).send(Mail(to="alice@example.org", subject="Grüße", text="Grüße\n", html="<p>Grüße</p>\n"))
    assert box.mails[0].content.isascii()
    assert box.message().get_body(("plain",)).get_content().replace("\r\n", "\n") == "Grüße\n"


def test_html_comes_beside_the_text(serve):
    port, box = serve()
    html = f'<p>Grüße <a href="{LINK}">here</a></p>\n'
    plain(port).send(Mail(to="alice@example.org", subject="Hi", text="Hi\n", html=html))
    message = box.message()
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert message.get_body(("html",)).get_content().replace("\r\n", "\n") == html


def test_a_domain_of_another_script_is_sent_as_name_servers_know_it(serve):
    port, box = serve(enable_SMTPUTF8=False)
    plain(port).send(Mail(to="alice@bücher.example", subject="Hi", text="Hi"))
    assert box.mails[0].rcpt_tos == ["alice@xn--bcher-kva.example"]


def test_a_name_of_another_script_needs_a_server_that_takes_it(serve):
    mail = Mail(to="jörg@example.org", subject="Grüße", text="Hi")
    port, box = serve(enable_SMTPUTF8=False)
    assert "SMTPUTF8" in not_sent(plain(port), permanent=True, mail=mail)
    port, box = serve()
    plain(port).send(mail)
    assert box.mails[0].rcpt_tos == ["jörg@example.org"]
    assert "To: jörg@example.org\r\n" in box.mails[0].content.decode()


def test_a_domain_that_no_name_server_knows_needs_such_a_server_too(serve):
    port, _ = serve(enable_SMTPUTF8=False)
    not_sent(plain(port), permanent=True, mail=Mail(to="a@-ü-.example", subject="Hi", text="Hi"))


def test_without_the_extra_a_domain_of_another_script_needs_such_a_server_too(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "email_validator", None)
    port, _ = serve(enable_SMTPUTF8=False)
    not_sent(plain(port), permanent=True, mail=Mail(to="a@bücher.example", subject="Hi", text="Hi"))


def test_a_server_is_greeted_by_the_address_of_the_connection(serve):
    port, box = serve()
    plain(port).send(MAIL)
    assert box.greetings == ["[127.0.0.1]"]


def test_a_server_is_found_by_ipv6_too():
    said = []

    def talk(connection):
        connection.sendall(b"220 hi\r\n")
        said.append(connection.recv(1000))

    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        except OSError:
            pytest.skip("no IPv6 here")
        port = listener.getsockname()[1]

        def serve():
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        stack.callback(thread.join, PATIENCE)
        not_sent(SMTPMailer("::1", port, sender=SENDER, tls="none", timeout=PATIENCE))
    assert said == [b"ehlo [IPv6:::1]\r\n"]


def test_many_threads_send_at_once(serve):
    port, box = serve()
    mailer, failures = plain(port), []

    def send():
        try:
            mailer.send(MAIL)
        except MailNotSent as error:
            failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (failures, len(box.mails)) == ([], 8)


# -- TLS ----------------------------------------------------------------------------------------------------


def test_a_server_without_starttls_gets_nothing(serve, mailer):
    port, box = serve()
    assert "STARTTLS" in not_sent(mailer(port, username=USER, password=PASSWORD))
    assert box.mails == []


def test_a_server_that_breaks_off_starttls_gets_nothing(mailer):
    said = []

    def rest(connection, lines):
        said.extend(lines)

    replies = [b"220 hi\r\n", b"250-hi\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n", b"454 4.7.0 not now\r\n"]
    with scripted(answering(*replies, then=rest)) as port:
        hint = not_sent(mailer(port, username=USER, password=PASSWORD))
    assert "454 4.7.0" in hint
    assert said == []


def test_what_was_said_before_tls_counts_for_nothing(certificate, mailer):
    """Whoever sits on the line may put words after the server's go-ahead: they must not pass for the server's own."""

    def talk(connection):
        with connection.makefile("rb") as lines:
            connection.sendall(b"220 hi\r\n")
            lines.readline()
            connection.sendall(b"250-hi\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")
            lines.readline()
            connection.sendall(b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n235 welcome\r\n")
            with certificate[0].wrap_socket(connection, server_side=True) as secured, secured.makefile("rb") as after:
                said.append(after.readline())
                secured.sendall(b"250 hi\r\n")
                said.append(after.readline())

    said = []
    with scripted(talk) as port:
        hint = not_sent(mailer(port, username=USER, password=PASSWORD))
    assert "AUTH" in hint
    assert said == [b"ehlo [127.0.0.1]\r\n", b""]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_certificate_that_nobody_vouches_for_is_refused(serve, mailer, certificate, tls):
    server = {"tls_context": certificate[0]} if tls == "starttls" else {"ssl_context": certificate[0]}
    port, box = serve(**server)
    for options in ({"context": None}, {"host": "127.0.0.1"}):
        hint = not_sent(mailer(port, tls=tls, username=USER, password=PASSWORD, **options))
        assert "certificate" in hint
    assert (box.mails, box.logins) == ([], [])


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # the test server's
def test_tls_from_the_first_byte(serve, mailer, certificate):
    port, box = serve(ssl_context=certificate[0], auth_required=True, auth_require_tls=False)
    mailer(port, tls="implicit", username=USER, password=PASSWORD).send(MAIL)
    assert (len(box.mails), box.logins) == (1, [(USER, PASSWORD)])


def test_a_server_that_speaks_no_tls_where_it_should(serve, mailer):
    port, box = serve()
    not_sent(mailer(port, tls="implicit", timeout=1))
    assert box.mails == []


@pytest.mark.parametrize(
    "host", ["mail.example.org", "192.0.2.1", "localhost.example.org", "10.0.0.1", "0.0.0.0", "::"]
)
@pytest.mark.parametrize("credentials", [{}, {"username": USER, "password": PASSWORD}], ids=["without", "with"])
def test_nothing_goes_over_a_network_in_the_clear(host, credentials):
    with pytest.raises(ConfigError) as caught:
        SMTPMailer(host, 25, sender=SENDER, tls="none", **credentials)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "::1"])
def test_to_this_machine_mail_may_go_in_the_clear(host):
    SMTPMailer(host, 25, username=USER, password=PASSWORD, sender=SENDER, tls="none")


def test_a_way_of_tls_that_there_is_not_is_refused():
    with pytest.raises(ConfigError):
        SMTPMailer("localhost", 25, sender=SENDER, tls="opportunistic")


# -- signing in ---------------------------------------------------------------------------------------------


def test_the_mailer_signs_in_over_tls(serve, mailer, certificate):
    port, box = serve(tls_context=certificate[0], require_starttls=True, auth_required=True)
    mailer(port, username=USER, password=PASSWORD).send(MAIL)
    assert (len(box.mails), box.logins) == (1, [(USER, PASSWORD)])


def test_a_wrong_password_is_no_fault_of_the_mail(serve, mailer, certificate):
    port, box = serve(tls_context=certificate[0], require_starttls=True, auth_required=True)
    hint = not_sent(mailer(port, username=USER, password="wrong"))
    assert "535 5.7.8" in hint
    assert "wrong" not in hint
    assert box.mails == []


def test_a_server_that_takes_no_passwords_is_not_given_one(serve, mailer, certificate):
    port, box = serve(tls_context=certificate[0], auth_exclude_mechanism=["PLAIN", "LOGIN"])
    not_sent(mailer(port, username=USER, password=PASSWORD))
    assert (box.logins, box.mails) == ([], [])


@pytest.mark.parametrize(
    ("username", "password"),
    [(USER, None), (None, PASSWORD), ("", PASSWORD), (USER, ""), (USER, "pässword"), (USER, "a\r\nb"), ("a\0b", "c")],
)
def test_credentials_that_no_server_can_be_sent_are_refused_at_once(username, password):
    with pytest.raises(ConfigError) as caught:
        SMTPMailer("localhost", 25, username=username, password=password, sender=SENDER)
    assert not password or password not in str(caught.value)


# -- senders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender",
    ["", "Example", "a@x.org, b@x.org", "Example, Inc <a@x.org>", "a@x.org\r\nBcc: b@x.org", "a@x.org\n", "a@", "jörg@x.org",
     "<>", "a@x.org <b@x.org", "A\0 <a@x.org>", "a@bücher.example"],
    ids=ascii,
)  # fmt: skip
def test_a_sender_that_is_not_one_address_is_refused(sender):
    with pytest.raises(ConfigError):
        SMTPMailer("localhost", 25, sender=sender)


@pytest.mark.parametrize(
    "sender", ["no-reply@app.example", "<no-reply@app.example>", '"Example, Inc" <no-reply@app.example>']
)
def test_a_sender_may_have_a_name(serve, sender):
    port, box = serve()
    plain(port, sender=sender).send(MAIL)
    assert box.mails[0].mail_from == "no-reply@app.example"


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "permanent"),
    [("550 5.1.1 no such user alice@example.org", True), ("450 4.2.1 mailbox busy", False), ("421 going away", False),
     ("553 5.1.3 bad", True), ("350 what?", False)],
)  # fmt: skip
@pytest.mark.parametrize("step", ["recipient", "data"])
def test_a_refusal_is_for_good_if_the_server_says_so(serve, step, reply, permanent):
    port, box = serve()
    setattr(box, step, reply)
    hint = not_sent(plain(port), permanent=permanent)
    assert reply.split(" ")[0] in hint
    assert box.mails == []


@pytest.mark.parametrize("reply", [b"550 5.7.1 who are you", b"451 later"])
def test_a_sender_that_is_refused_is_no_fault_of_the_mail(reply):
    with scripted(answering(b"220 hi\r\n", b"250 hi\r\n", reply + b"\r\n", b"250 ok\r\n")) as port:
        assert "mail.sender" in not_sent(plain(port))


@pytest.mark.parametrize(
    "reply", [b"554 no service\r\n", b"421 later\r\n", b"hello?\r\n", b"\r\n", b"", b"\xff\xfe\r\n"]
)
def test_a_greeting_that_is_none(reply):
    with scripted(answering(reply)) as port:
        not_sent(plain(port))


STEPS = [b"220 hi\r\n", b"250 hi\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_a_server_that_goes_away_mid_way(steps):
    with scripted(answering(*STEPS[:steps])) as port:
        not_sent(plain(port))


def test_a_bad_good_bye_does_not_unsend_a_mail():
    came = []

    def rest(connection, lines):
        for line in lines:
            came.append(line)
            if line == b".\r\n":
                connection.sendall(b"250 taken\r\n")
                return

    with scripted(answering(*STEPS, then=rest)) as port:
        plain(port).send(MAIL)
    assert LINK.encode() in b"".join(came)


def test_a_server_that_is_not_there():
    not_sent(plain(free_port()))
    not_sent(SMTPMailer("no-such-host.invalid", 587, sender=SENDER, timeout=PATIENCE))
    not_sent(SMTPMailer("a" * 64 + ".example", 587, sender=SENDER, timeout=PATIENCE))


def test_what_a_server_says_is_not_repeated():
    def rest(connection, lines):
        mail = []
        for line in lines:
            mail.append(line.strip())
            if line == b".\r\n":
                connection.sendall(b"554 5.6.0 " + b" ".join(mail) + b"\r\n")
                return

    with scripted(answering(*STEPS, then=rest)) as port:
        assert not_sent(plain(port), permanent=True) == "The mail server refused the mail: 554 5.6.0."


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(replies=st.lists(st.sampled_from(STEPS) | st.binary(max_size=60).map(lambda line: line + b"\r\n"), max_size=7))
@example(replies=[b"220 hi\r\n", b"250-hi\r\n250 AUTH CRAM-MD5\r\n", b"334 \xff\xff\r\n"])
@example(replies=[b"220 hi\r\n", b"250-hi\r\n250 AUTH CRAM-MD5\r\n", b"334 a\r\n"])
@example(
    replies=[b"220 hi\r\n", b"250-hi\r\n250 AUTH LOGIN\r\n", b"334 x\r\n", b"334 x\r\n", b"334 x\r\n", b"334 x\r\n"]
)
@example(replies=[b"220 hi\r\n", b"2" * 9000 + b"\r\n"])
def test_whatever_a_server_answers_the_mail_is_sent_or_not(replies):
    with scripted(answering(*replies)) as port, contextlib.suppress(MailNotSent):
        plain(port, username=USER, password=PASSWORD).send(MAIL)


# -- time ---------------------------------------------------------------------------------------------------


def took(act):
    began = time.monotonic()
    act()
    return time.monotonic() - began


def test_a_server_that_says_nothing_is_not_waited_for():
    with scripted(lambda connection: connection.recv(1)) as port:
        assert took(lambda: not_sent(plain(port, timeout=0.2))) < 5


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
def test_a_server_that_trickles_is_hung_up_on(certificate, mailer, tls):
    """Each byte comes in time, and all of them together never."""

    def trickle(connection):
        for _ in range(400):
            connection.sendall(b"2")
            time.sleep(0.05)

    def talk(connection):
        if tls == "none":
            trickle(connection)
            return
        if tls == "starttls":
            answering(b"220 hi\r\n", b"250-hi\r\n250 STARTTLS\r\n", b"220 go\r\n")(connection)
        with certificate[0].wrap_socket(connection, server_side=True) as secured:
            trickle(secured)

    with scripted(talk) as port:
        slow = plain(port, timeout=0.5) if tls == "none" else mailer(port, tls=tls, timeout=0.5)
        assert took(lambda: not_sent(slow)) < 5


def test_a_server_that_shakes_hands_for_ever_is_not_waited_for(mailer):
    with scripted(lambda connection: [connection.recv(1000), connection.recv(1)]) as port:
        assert took(lambda: not_sent(mailer(port, tls="implicit", timeout=0.3))) < 5


def test_every_address_of_a_host_is_tried(serve, monkeypatch):
    port, box = serve()
    silent = socket.create_server(("127.0.0.1", 0))
    silent.close()
    found = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    nowhere = [(*found[0][:4], ("127.0.0.1", free_port()))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: nowhere + found)
    plain(port).send(MAIL)
    assert len(box.mails) == 1


def test_no_thread_and_no_connection_is_left(serve):
    port, _ = serve()
    before = threading.active_count()
    plain(port).send(MAIL)
    not_sent(plain(free_port()))
    assert threading.active_count() == before


def test_where_no_thread_can_be_started_nothing_is_sent(serve, monkeypatch):
    port, box = serve()

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    not_sent(plain(port))
    assert box.mails == []


# -- forks --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_mailer_works_on_both_sides_of_a_fork(serve, mailer, certificate):
    port, box = serve(tls_context=certificate[0], require_starttls=True)
    sender = mailer(port)
    sender.send(MAIL)
    assert in_a_child(lambda: sender.send(MAIL)) == 0
    sender.send(MAIL)
    assert len(box.mails) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_is_born_while_mail_is_sent_can_send(serve, mailer, certificate):
    port, _ = serve(tls_context=certificate[0], require_starttls=True)
    sender, stop = mailer(port), threading.Event()

    def send():
        while not stop.is_set():
            sender.send(MAIL)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert [in_a_child(lambda: sender.send(MAIL)) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_no_child_is_born_while_tls_is_agreed_on(mailer, certificate, tls):
    """OpenSSL may hold a lock at that moment, and nobody would release it in the child."""
    agreeing, born = threading.Event(), threading.Event()

    def talk(connection):
        if tls == "starttls":
            answering(b"220 hi\r\n", b"250-hi\r\n250 STARTTLS\r\n", b"220 go\r\n")(connection)
        connection.recv(1, socket.MSG_PEEK)
        agreeing.set()
        too_early.append(born.wait(0.3))
        with certificate[0].wrap_socket(connection, server_side=True):
            pass

    too_early = []
    with scripted(talk) as port:
        thread = threading.Thread(target=lambda: not_sent(mailer(port, tls=tls)))
        thread.start()
        try:
            assert agreeing.wait(PATIENCE)
            assert in_a_child(lambda: None) == 0
            born.set()
        finally:
            thread.join(PATIENCE)
    assert too_early == [False]


def in_a_child(act):
    """The exit code of a forked child that does it: 0, or 1 if it raised, or that of an alarm if it hung."""
    import signal
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of a fork beside threads: that is the test
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


# -- settings -----------------------------------------------------------------------------------------------


def opened(url, sender=SENDER, **options):
    return open_mailer(MailSettings(url=Secret(url), sender=sender, **options))


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # the test server's
def test_a_url_leads_to_a_server(serve):
    port, box = serve(auth_required=True, auth_require_tls=False)
    opened(f"smtp://{USER}:s3cret%2Fpa%3Ass%40word@127.0.0.1:{port}?tls=none", timeout=5.0).send(MAIL)
    assert (len(box.mails), box.logins) == (1, [(USER, PASSWORD)])


def test_smtp_urls_demand_starttls_also_of_this_machine(serve):
    port, box = serve()
    assert "STARTTLS" in not_sent(opened(f"smtp://127.0.0.1:{port}"))
    opened(f"smtp://127.0.0.1:{port}?tls=none").send(MAIL)
    assert len(box.mails) == 1


def test_smtps_urls_demand_tls_from_the_first_byte(serve, certificate):
    port, box = serve(ssl_context=certificate[0])
    assert "certificate" in not_sent(opened(f"smtps://localhost:{port}"))
    assert box.mails == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [("smtp://mail.example.org", ("mail.example.org", 587, "starttls")),
     ("smtps://mail.example.org/", ("mail.example.org", 465, "implicit")),
     ("SMTPS://mail.example.org:2465", ("mail.example.org", 2465, "implicit")),
     ("smtp://[::1]:25?tls=none", ("::1", 25, "none"))],
)  # fmt: skip
def test_a_url_has_its_usual_port(url, expected):
    mailer = opened(url)
    assert (mailer._host, mailer._port, mailer._tls) == expected


@pytest.mark.parametrize(
    "url",
    [
        "smtp://u:hunter2@mail.example.org?tls=none", "smtp://u:hunter2@mail.example.org?tls=no",
        "smtp://u:hunter2@mail.example.org?tls=starttls", "smtps://u:hunter2@127.0.0.1?tls=none",
        "smtp://u:hunter2@127.0.0.1?tls=none&tls=none", "smtp://u:hunter2@127.0.0.1?timeout=3",
        "smtp://u:hunter2@mail.example.org/path", "smtp://u:hunter2@mail.example.org#x", "smtp://u:hun/ter2@x.org",
        "smtp://u:hun#ter2@x.org", "smtp://u:hun?ter2@x.org", "smtp://u:hunter2@", "smtp://", "smtp://u:hunter2@x.org:0",
        "smtp://u:hunter2@x.org:99999", "smtp://u:hunter2@x.org:x", "smtp://u:hunter2@[::1", "smtp://u@x.org",
        "smtp://:hunter2@x.org", "smtp://u:@x.org", "smtp://u:hunter2%ff@x.org", "smtp://u:hunter2%0d%0a@x.org",
        "smtp://u:hunter2%C3%BC@x.org", "smtp://u:hunter2\n@x.org", "u:hunter2@x.org", "hunter2", "http://u:hunter2@x.org",
        "console://hunter2", "console:", "console://?hunter2", " smtp://u:hunter2@x.org", b"smtp://u:hunter2@\xff",
        "smtp://u:hunter2@x\u2100.org",
    ],
    ids=ascii,
)  # fmt: skip
def test_asvs_16_2_5_a_url_that_cannot_be_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        opened(url).send(MAIL)
    error = caught.value
    assert "hun" not in f"{error!r} {error}"
    assert error.__context__ is None or error.__suppress_context__


@settings(max_examples=200)
@given(st.text(max_size=40) | st.text(max_size=30).map(lambda rest: f"smtp://{rest}"))
def test_whatever_the_url_it_leads_to_a_mailer_or_to_an_error_in_the_configuration(url):
    with contextlib.suppress(ConfigError, UnicodeEncodeError):
        opened(url)


def test_a_server_needs_a_sender():
    with pytest.raises(ConfigError, match=r"mail\.sender"):
        opened("smtps://mail.example.org", None)


def test_nothing_of_a_mailer_shows_its_password():
    assert PASSWORD not in repr(SMTPMailer("localhost", 25, username=USER, password=PASSWORD, sender=SENDER))
