"""What a route demands, as values that combine. The framework-free ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import ANONYMOUS, Identity
from jam.checkpoints import Authenticated, Checkpoint, Claim, Fresh, HasRole, HasScope, Method
from jam.errors import AccessDenied, ConfigError

NOW = 1_800_000_000.0
ALICE = Identity(
    subject="alice",
    method="session",
    payload_json=b'{"tenant":"a","admin":true,"level":1}',
    roles=frozenset({"editor", "author"}),
    scopes=frozenset({"posts:read", "posts:write"}),
    authenticated_at=NOW - 300,
)


def code(checkpoint, identity=ALICE):
    return checkpoint.evaluate(identity, NOW).code


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (Authenticated(), None),
        (HasRole("editor"), None),
        (HasRole("admin", "author"), None),
        (HasRole("admin"), "role_required"),
        (HasRole("Editor"), "role_required"),
        (HasScope("posts:read"), None),
        (HasScope("posts:read", "posts:write"), None),
        (HasScope("posts:read", "posts:delete"), "insufficient_scope"),
        (HasScope("posts"), "insufficient_scope"),
        (HasScope("POSTS:READ"), "insufficient_scope"),
        (Claim("tenant", "a"), None),
        (Claim("tenant", "b", "a"), None),
        (Claim("tenant", "b"), "claim_required"),
        (Claim("missing", None), "claim_required"),
        (Claim("level", 1), None),
        (Claim("level", True), "claim_required"),
        (Claim("level", "1"), "claim_required"),
        (Claim("admin", True), None),
        (Claim("admin", 1), "claim_required"),
        (Fresh(300), None),
        (Fresh(299), "insufficient_user_authentication"),
        (Method("session"), None),
        (Method("jwt", "session"), None),
        (Method("jwt"), "method_required"),
    ],
)
def test_a_checkpoint_lets_exactly_those_pass_whom_it_describes(checkpoint, expected):
    assert code(checkpoint) == expected


@pytest.mark.parametrize(
    "checkpoint", [Authenticated(), HasRole("x"), HasScope("x"), Claim("x", 1), Fresh(60), Method("jwt")]
)
def test_nobody_passes_any_of_them(checkpoint):
    assert not checkpoint.evaluate(ANONYMOUS, NOW)
    assert checkpoint.protects()


def test_a_token_without_sub_fills_the_payload_and_is_nobody():
    nobody = Identity(subject=None, method="jwt", payload_json=b'{"user":1}')
    assert code(Claim("user", 1), nobody) is None
    assert code(Authenticated(), nobody) == "authentication_required"


def test_somebody_who_never_proved_it_is_not_fresh():
    assert code(Fresh(1e9), Identity(subject="alice", method="jwt")) == "insufficient_user_authentication"


def test_a_sign_in_from_the_future_is_not_fresh():
    assert code(Fresh(60), Identity(subject="alice", method="jwt", authenticated_at=NOW + 100)) is not None


def test_and_asks_in_order_and_stops_at_the_first_refusal():
    decision = (Authenticated() & HasRole("admin") & HasScope("never:asked")).evaluate(ALICE, NOW)
    assert decision.code == "role_required"
    assert [(step.checkpoint, step.allowed) for step in decision.steps] == [
        ("Authenticated()", True),
        ("HasRole('admin')", False),
    ]
    assert decision.steps[1].reason


def test_or_needs_one_and_gives_the_first_reason():
    assert code(HasRole("admin") | HasScope("posts:write")) is None
    decision = (HasRole("admin") | HasScope("users:write")).evaluate(ALICE, NOW)
    assert decision.code == "role_required"
    assert len(decision.steps) == 2


def test_not_is_the_opposite():
    assert code(~HasRole("admin")) is None
    assert code(~HasRole("editor")) == "access_denied"


def test_a_combination_reads_as_it_is_written():
    checkpoint = Authenticated() & (HasRole("admin") | ~HasScope("users:write"))
    assert repr(checkpoint) == "(Authenticated() & (HasRole('admin') | ~HasScope('users:write')))"


@pytest.mark.parametrize(
    ("checkpoint", "protects"),
    [
        (Authenticated() & ~HasRole("guest"), True),
        (~HasRole("guest"), False),
        (Authenticated() | ~HasRole("guest"), False),
        (HasRole("a") | HasScope("b"), True),
        (~~Authenticated(), True),
        (~Authenticated(), False),
    ],
)
def test_what_lets_nobody_through_is_no_protection(checkpoint, protects):
    assert checkpoint.protects() is protects


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: HasRole(),
        lambda: HasRole(""),
        lambda: HasRole(["admin"]),
        lambda: HasScope(None),
        lambda: Claim("tenant"),
        lambda: Claim("", 1),
        lambda: Fresh(0),
        lambda: Fresh(float("inf")),
        lambda: Method(),
        lambda: Authenticated() & HasRole,
        lambda: Authenticated() | True,
        lambda: Authenticated() and HasRole("admin"),
        lambda: not HasRole("admin"),
        lambda: bool(Authenticated()),
    ],
)
def test_a_mistake_is_found_where_it_is_written(mistake):
    with pytest.raises(ConfigError):
        mistake()


class Opinion(Checkpoint):
    def __init__(self, allowed):
        self.allowed = allowed

    def refusal(self, identity, now):
        return None if self.allowed else AccessDenied()

    def __repr__(self):
        return str(self.allowed)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.booleans(),
        lambda inner: st.tuples(st.just("~"), inner) | st.tuples(st.sampled_from("&|"), inner, inner),
        max_leaves=12,
    )
)
def test_any_combination_agrees_with_boolean_logic_both_ways_it_can_be_asked(tree):
    def build(node):
        if isinstance(node, bool):
            return Opinion(node), node
        if node[0] == "~":
            checkpoint, truth = build(node[1])
            return ~checkpoint, not truth
        (left, left_truth), (right, right_truth) = build(node[1]), build(node[2])
        if node[0] == "&":
            return left & right, left_truth and right_truth
        return left | right, left_truth or right_truth

    checkpoint, truth = build(tree)
    assert bool(checkpoint.evaluate(ALICE, NOW)) is truth
    assert (checkpoint.refusal(ALICE, NOW) is None) is truth
