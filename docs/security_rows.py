# ruff: noqa: INP001, T201
"""Write the table of requirements in ``docs/security.md`` anew: ``python docs/security_rows.py``.

The rows are the ids that the names of the tests carry, such as ``asvs_9_1_1`` or ``rfc7515_4_1_11``; the words
for them stand here. The suite fails while table and tests differ, and while an id has no words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BEGIN, END = "<!-- rows: python docs/security_rows.py -->\n", "<!-- end of rows -->"

# ASVS sections have three numbers, RFC sections any; none has more than two digits.
_ID = re.compile(
    r"(?<=_)(asvs(?:_\d{1,2}(?!\d)){3}|rfc\d{4}(?:bis)?(?:_\d{1,2}(?!\d))*|(?:nist|owasp)(?:_\d{1,2}(?!\d))*)(?=_|$)"
)

REQUIREMENTS = {
    "asvs_1_2_4": "What people write is data to a database, never a part of a query.",
    "asvs_2_4_1": "What people do now and then cannot be done by the thousand.",
    "asvs_10_4_5": "A used refresh token is not accepted again, and its family ends.",
    "asvs_10_4_8": "Refresh tokens have an absolute end, used or not.",
    "asvs_10_4_9": "Whoever holds refresh tokens can have them revoked.",
    "asvs_11_2_2": "Keys can be changed without logging everybody out.",
    "asvs_16_3_3": "What a guard refuses can be logged, with the reason.",
    "asvs_3_3_1": "Cookies that hold a credential are Secure.",
    "asvs_3_3_2": "A cookie says with SameSite which requests it goes with.",
    "asvs_3_3_3": "A cookie with the `__Host-` or `__Secure-` prefix keeps what the prefix promises.",
    "asvs_3_3_4": "Page scripts cannot read a session's cookie, and its value is sent nowhere else.",
    "asvs_3_3_5": "No cookie is longer than browsers keep.",
    "asvs_3_4_2": "No answer opens itself to every origin together with credentials.",
    "asvs_3_5_1": "An unsafe request with a cookie proves that it comes from the site itself.",
    "asvs_3_5_2": "The proof does not rest on a preflight that a simple request avoids.",
    "asvs_3_5_3": "Safe methods change nothing.",
    "asvs_3_7_2": "Redirects lead only where the app said.",
    "asvs_4_1_1": "Every body is declared as what it is.",
    "asvs_4_1_3": "A client cannot set what only a proxy may say.",
    "asvs_4_1_4": "Only the methods a route knows are answered.",
    "asvs_4_2_5": "No header is longer than clients take.",
    "asvs_6_1_1": "The documentation says how guessing is slowed down and why nobody can be locked out, and it is so.",
    "asvs_6_1_3": "The documentation lists every way in, with what protects it.",
    "asvs_6_2_1": "A new password has 15 characters, or as few as the app says, but not less than 8.",
    "asvs_6_2_2": "People can change their passwords.",
    "asvs_6_2_3": "Changing a password takes the present one.",
    "asvs_6_2_4": "Common passwords are refused.",
    "asvs_6_2_5": "No rule says of what characters a password is made.",
    "asvs_6_2_8": "A password is verified as it was received: nothing is cut off, trimmed or folded.",
    "asvs_6_2_9": "Long passwords are taken, and all of their characters count.",
    "asvs_6_2_10": "A password does not end with time.",
    "asvs_6_2_11": "Words that belong to the service or the person are refused in passwords.",
    "asvs_6_2_12": "Passwords that are known from a breach are refused.",
    "asvs_6_3_1": "Guessing is counted and slowed down.",
    "asvs_6_3_2": "There is no account and no secret out of the box.",
    "asvs_6_3_4": "Every way of signing in has the controls the documentation names.",
    "asvs_6_3_5": "Who signs in after failures, or leaves a sign-in halfway, can be told of it.",
    "asvs_6_3_6": "Reading somebody's mail is no factor of a sign-in.",
    "asvs_6_3_7": "People are told of changes of their passwords and addresses, at the former address as well.",
    "asvs_6_3_8": "Answers do not tell which accounts there are.",
    "asvs_6_4_1": "Links are random, end soon, are good once, and never become a password.",
    "asvs_6_4_3": "Setting a new password gets around no other step.",
    "asvs_6_4_6": "An administrator starts a reset and does not choose the password.",
    "asvs_6_5_1": "What is good once is used once, also if it is sent twice at the same moment.",
    "asvs_6_5_2": "What has 112 bits of entropy or more may be stored as a plain hash; what has less may not.",
    "asvs_6_5_3": "Secrets come from the system's random source.",
    "asvs_6_6_2": "A code belongs to the sign-in it was asked for.",
    "asvs_6_6_3": "Codes cannot be guessed by trying.",
    "asvs_7_1_1": "Both ends of a session's life are documented and can be set.",
    "asvs_7_2_1": "Session tokens are verified on the server.",
    "asvs_7_2_2": "Session tokens are made anew each time, never static.",
    "asvs_7_2_3": "A reference token is unique and has at least 128 random bits.",
    "asvs_7_2_4": "Every sign-in makes a new token and ends the one before.",
    "asvs_7_3_1": "A session that is not used ends.",
    "asvs_7_3_2": "A session ends at its absolute end, used or not.",
    "asvs_7_4_1": "What was ended cannot be used again, self-contained tokens included.",
    "asvs_7_4_2": "Everything of one person can be ended at once.",
    "asvs_7_4_3": "All other sessions can be ended after a change of a factor.",
    "asvs_7_4_4": "Pages show a way to sign out.",
    "asvs_7_4_5": "An administrator can end the sessions of one person or of everyone.",
    "asvs_7_5_1": "Sensitive changes ask for a recent sign-in.",
    "asvs_7_5_2": "People can see their sessions and end any of them.",
    "asvs_7_5_3": "Very sensitive operations can ask for more than a session.",
    "asvs_8_2_1": "Nobody reaches a route without permission; what nobody spoke of can be shut.",
    "asvs_8_2_2": "Nobody reaches another person's records by their ids.",
    "asvs_8_2_3": "What somebody may change does not include who they are.",
    "asvs_8_2_4": "Context can be part of the decision, in every request.",
    "asvs_8_3_1": "Rules are enforced on the server, for every method and spelling of a path.",
    "asvs_8_3_2": "Changes of what somebody may do take effect at once, or when stated.",
    "asvs_8_4_1": "Tenants are kept apart.",
    "asvs_9_1_1": "A token's signature is verified before its content is used.",
    "asvs_9_1_2": "Only chosen algorithms verify, never none, and the families are not mixed.",
    "asvs_9_1_3": "Keys come from the configuration, never from a token.",
    "asvs_9_2_1": "A token is accepted only within its time.",
    "asvs_9_2_2": "A token is accepted only for the purpose it was made for.",
    "asvs_9_2_3": "A token is accepted only by the audience it names.",
    "asvs_9_2_4": "Every token that is issued names its audience.",
    "asvs_10_3_1": "An API accepts only tokens that name it as audience.",
    "asvs_10_3_2": "Decisions rest on subject and scopes, compared whole and exactly.",
    "asvs_10_3_3": "People are told apart by claims that are never given to somebody else.",
    "asvs_10_3_4": "How and when somebody signed in can be demanded.",
    "asvs_11_2_3": "Keys have at least 128 bits of strength where they are made, and weak ones are refused.",
    "asvs_11_2_4": "Secrets are compared in constant time.",
    "asvs_11_4_2": "Passwords are hashed with a memory-hard function of current strength.",
    "asvs_11_5_1": "What must not be guessed has at least 128 bits from a cryptographic source; a UUID is not enough.",
    "asvs_12_3_2": "TLS to a service is believed only with a certificate that can be verified.",
    "asvs_13_3_1": "No secret is in the code, and none that everybody knows is accepted.",
    "asvs_13_3_2": "What is secret is readable by the app alone.",
    "asvs_14_2_1": "Tokens are not taken from URLs.",
    "asvs_14_2_6": "No more is kept and shown than is needed.",
    "asvs_14_2_7": "What is old can be removed.",
    "asvs_14_3_1": "Signing out leaves nothing behind in the browser.",
    "asvs_14_3_2": "Answers that carry credentials are not cached.",
    "asvs_15_3_2": "Outgoing calls follow no redirects.",
    "asvs_15_3_3": "A request cannot set fields it was not meant to set.",
    "asvs_15_3_4": "A client's address is not taken from headers it can forge.",
    "asvs_15_3_5": "Values are compared together with their types.",
    "asvs_15_3_7": "The same parameter sent twice or in two places confuses nothing.",
    "asvs_15_4_2": "A check and the use it allows are one atomic step.",
    "asvs_16_2_5": "Logs and events hold no secret.",
    "asvs_16_3_1": "Successful and failed authentication is recorded.",
    "asvs_16_3_2": "Refusals are recorded.",
    "asvs_16_4_1": "Nothing a client sends can forge a log entry.",
    "asvs_16_4_2": "Logs are readable by their owner alone.",
    "asvs_16_5_1": "Error messages are generic and show no internals.",
    "asvs_16_5_2": "What fails outside does not take the app with it.",
    "asvs_16_5_3": "A failure never lets anybody in.",
    "asvs_16_5_4": "The last error handler catches what nobody else does.",
    "rfc2104": "HMAC, as defined.",
    "rfc5869": "Keys are derived with HKDF.",
    "rfc6265bis": "Cookies keep the rules of their prefixes; names are compared exactly.",
    "rfc6749_3_3": "Scopes are separated by spaces and compared exactly.",
    "rfc7515_4_1": "What a registered header parameter means is not for an app to say.",
    "rfc9700_4_14_2": "Refresh tokens rotate, and one that comes back ends its family.",
    "rfc6750": "Bearer tokens in the Authorization header, and the challenges that go with them.",
    "rfc6750_2": "A token arrives in one way only.",
    "rfc6750_2_1": "The Authorization header carries a token; the scheme's case does not matter.",
    "rfc6750_3": "A 401 names the scheme, and why the token did not count.",
    "rfc6750_3_1": "The error codes invalid_token and insufficient_scope.",
    "rfc7009_2_2": "Revoking what is gone already is no error.",
    "rfc7515": "Compact JWS, as defined.",
    "rfc7515_2": "Base64url has one spelling: no padding, no white space, no stray bits.",
    "rfc7515_3_1": "Compact serialization has three parts.",
    "rfc7515_4": "Duplicate names in a header or payload are refused.",
    "rfc7515_4_1_4": "A kid is a name to look up, nothing else.",
    "rfc7515_4_1_9": "typ is compared without regard to case and to application/.",
    "rfc7515_4_1_11": "A critical extension that is not understood is refused.",
    "rfc7515_5_2": "A token is refused if any step of its verification fails.",
    "rfc7516": "An encrypted token is no access token.",
    "rfc7517": "JSON Web Keys, as defined.",
    "rfc7517_4_1": "Only known key types are read.",
    "rfc7517_4_2": "A key whose use is not sig is refused.",
    "rfc7517_4_3": "key_ops is honoured.",
    "rfc7517_4_4": "A key marked for one algorithm is not used for another.",
    "rfc7517_4_5": "A key's kid is kept.",
    "rfc7517_5": "Public keys are published as a JWK set.",
    "rfc7518_3_2": "An HMAC key is at least as long as its hash.",
    "rfc7518_3_3": "An RSA key has at least 2048 bits.",
    "rfc7518_3_4": "An ECDSA signature is both numbers at full length.",
    "rfc7518_3_5": "RSASSA-PSS with a salt as long as the hash.",
    "rfc7518_6_2_1": "A coordinate has the length of its curve.",
    "rfc7518_6_2_2": "A private number has the length of its curve.",
    "rfc7518_6_3_2": "The numbers of an RSA key belong together.",
    "rfc7519_4": "Claims are read from one unambiguous JSON object.",
    "rfc7519_4_1": "Registered claims have the types the RFC gives them.",
    "rfc7519_4_1_1": "iss is a string.",
    "rfc7519_4_1_2": "sub is a string.",
    "rfc7519_4_1_3": "aud is a string or an array of strings that names this app.",
    "rfc7519_4_1_4": "A token is refused at its exp, not a moment after.",
    "rfc7519_4_1_5": "A token is refused before its nbf.",
    "rfc7519_4_1_6": "iat is a number.",
    "rfc7519_4_1_7": "jti tells tokens apart.",
    "rfc7638": "A key is named by its thumbprint.",
    "rfc7638_3_1": "A thumbprint is taken over the required members alone, in order.",
    "rfc7797_6": "Unencoded payloads (b64) are refused.",
    "rfc8037": "Ed25519 signatures, as defined.",
    "rfc8176": "amr holds how somebody signed in.",
    "rfc8725_2_1": "A public key is never taken for a shared secret.",
    "rfc8725_3_1": "A key has one algorithm, compared exactly; the token does not choose.",
    "rfc8725_3_2": "There is no none, and no algorithm that is out of date.",
    "rfc8725_3_3": "If one check fails, the whole token is refused.",
    "rfc8725_3_4": "A key off its curve or of small order is refused.",
    "rfc8725_3_5": "Short and guessable keys are refused.",
    "rfc8725_3_6": "Nothing is compressed.",
    "rfc8725_3_7": "Only UTF-8 is read, without a byte order mark.",
    "rfc8725_3_8": "Issuer and subject are validated.",
    "rfc8725_3_9": "Another audience's token is refused.",
    "rfc8725_3_10": "Nothing in a header is trusted: no look-up, no outgoing request.",
    "rfc8725_3_11": "Tokens say with typ what they are, and only expected types pass.",
    "rfc8725_3_12": "No kind of token passes for another.",
    "rfc8725_3_13": "No input makes verification slow (in the successor draft).",
    "rfc8725_3_14": "A token has no characters but base64url and dots (in the successor draft).",
    "rfc8725bis_3_1": "An algorithm's name is compared by its exact case.",
    "rfc8725bis_3_13": "No input makes verification slow.",
    "rfc8725bis_3_14": "A token has no characters but base64url and dots.",
    "rfc9068": "Access tokens of the JWT profile.",
    "rfc9068_2": "An access token has the type and claims of the profile.",
    "rfc9068_2_1": "An access token is of type at+jwt.",
    "rfc9068_2_2": "An access token has all required claims.",
    "rfc9068_4": "Type, issuer, audience, time and signature of an access token are all checked.",
    "rfc9110_5_6_4": "What goes into a quoted string is quoted.",
    "rfc9110_9_2_1": "Safe methods are the four the RFC names.",
    "rfc9110_11_6_1": "Every 401 carries a challenge.",
    "rfc9457": "Problem details, as defined; the status in the body is the status of the answer.",
    "rfc9470": "A stale sign-in is told how fresh it must be.",
    "rfc9470_3": "A stale sign-in is told how fresh it must be.",
    "rfc9864": "Ed25519 is known by its new name and by its old one.",
    "nist_3_2_2": "At most a hundred guesses at one account are looked at in a row.",
}


def ids_in(name: str) -> list[str]:
    """The ids in the name of a test."""
    return _ID.findall(name)


def ids_of_tests() -> dict[str, list[tuple[str, str]]]:
    """Every id with the tests that show it, each as ``(file, test)``."""
    found: dict[str, list[tuple[str, str]]] = {}
    kit = ROOT / "src" / "jam" / "testing" / "stores.py"
    for path in [*sorted((ROOT / "tests").rglob("test_*.py")), kit]:
        for test in _tests(ast.parse(path.read_text("utf-8"))):
            for one in ids_in(test):
                found.setdefault(one, []).append((path.relative_to(ROOT).as_posix(), test))
    return found


def _tests(tree: ast.Module) -> Iterator[str]:
    """The functions and methods pytest collects."""
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for one in inner:
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)) and one.name.startswith("test_"):
                yield one.name


def title(one: str) -> str:
    """``asvs_9_1_1`` as a reader knows it: ``ASVS 9.1.1``."""
    family, _, section = one.partition("_")
    name = re.sub(r"rfc(\d+)", r"RFC \1", family) if family.startswith("rfc") else family.upper()
    return f"{name} {section.replace('_', '.')}".rstrip()


def table() -> str:
    """The table, in the order of the ids."""
    lines = ["| requirement | in short | shown by |", "|---|---|---|"]
    found = ids_of_tests()
    for one in sorted(found, key=lambda one: [int(part) if part.isdigit() else part for part in re.split(r"_", one)]):
        shown = "<br>".join(f"`{file}` `{test}`" for file, test in found[one])
        lines.append(f"| {title(one)}<br>`{one}` | {REQUIREMENTS.get(one, '')} | {shown} |")
    return "\n".join(lines) + "\n"


def with_rows(page: str) -> str:
    """The page with its table as it ought to be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the table, and say which ids have no words yet."""
    missing = sorted(ids_of_tests().keys() - REQUIREMENTS.keys())
    path = DOCS / "security.md"
    path.write_text(with_rows(path.read_text("utf-8")), "utf-8")
    if missing:
        raise SystemExit(f"Say in REQUIREMENTS what these ask for: {', '.join(missing)}")
    print(f"{len(ids_of_tests())} requirements are in docs/security.md.")


if __name__ == "__main__":
    main()
