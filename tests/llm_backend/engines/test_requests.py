"""What requests refuse at construction: types, NaN, whole numbers, 64 bits, one line each."""

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from treeshare.llm_backend.api import Chat, Generate, Reward, Sampling, Score

NAN, INFINITY = float("nan"), float("inf")
USER = ("user", "a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": NAN}, "temperature=nan must be a finite number"),
        ({"temperature": INFINITY}, "temperature=inf must be a finite number"),
        ({"temperature": 10**400}, "temperature=10+... must be a finite number"),
        ({"temperature": 1e-45}, r"temperature=1e-45 must be 0, or from 1e-06 to 1e\+06"),
        ({"temperature": 1e7}, r"temperature=10000000.0 must be 0, or from 1e-06 to 1e\+06"),
        ({"temperature": "0.7"}, "temperature='0.7' must be a number"),
        ({"temperature": True}, "temperature=True must be a number"),
        ({"temperature": None}, "temperature=None must be a number"),
        ({"temperature": 1j}, "temperature=1j must be a number"),
        ({"top_p": NAN}, "top_p=nan must be a finite number"),
        ({"top_p": 1.5}, r"top_p=1.5 must be in \(0, 1\]"),
        ({"top_p": True}, "top_p=True must be a number"),
        ({"max_tokens": 2.5}, "max_tokens=2.5 must be a whole number"),
        ({"max_tokens": 2.0}, "max_tokens=2.0 must be a whole number"),
        ({"max_tokens": True}, "max_tokens=True must be a whole number"),
        ({"max_tokens": np.True_}, "max_tokens=.*True.* must be a whole number"),
        ({"max_tokens": None}, "max_tokens=None must be a whole number"),
        ({"max_tokens": 1 << 40}, "max_tokens=1099511627776 must be at most 2147483648"),
        ({"top_k": 99999999999999999999}, "top_k=9{20} must be at most 2147483648"),
        ({"top_k": 10**5000}, "top_k=an integer of 16610 bits must be at most 2147483648"),
        ({"top_k": 1.5}, "top_k=1.5 must be a whole number, or null to keep all tokens"),
        ({"top_k": NAN}, "top_k=nan must be a whole number"),
        ({"stop": [1]}, "stop holds 1, which is no string"),
        ({"stop": ["a", None]}, "stop holds None, which is no string"),
        ({"stop": None}, "stop=None must be strings"),
        ({"stop": b"ab"}, "stop=b'ab' must be strings"),
        ({"stop": {"a": "b"}}, "stop={'a': 'b'} must be strings"),
        ({"stop": ""}, "empty string"),
        ({"stop": [["x\n" * 999]]}, r"stop holds \['x.n.*\.\.\., which is no string"),
    ],
)
def test_bad_sampling_is_named_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Sampling(**fields)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Generate(None), "prompt=None must be strings"),
        (lambda: Generate(b"ab"), "prompt=b'ab' must be strings"),
        (lambda: Generate(("a", None)), "prompt holds None"),
        (lambda: Generate(("a", b"b")), "prompt holds b'b'"),
        (lambda: Generate(7), "prompt=7 must be strings"),
        (lambda: Generate(("a",), 1.5), "n=1.5 must be a whole number"),
        (lambda: Generate(("a",), True), "n=True must be a whole number"),
        (lambda: Generate(("a",), 0), "n=0 must be at least 1"),
        (lambda: Generate(("a",), 10**9), "n=1000000000 must be at most 65536"),
        (lambda: Generate(("a",), 1, {"max_tokens": 3}), "must be a Sampling"),
        (lambda: Generate(("a",), 1, None), "sampling=None must be a Sampling"),
        (lambda: Generate(("a",), seed=-1), "seed=-1 must be at least 0"),
        (lambda: Generate(("a",), seed=1 << 64), f"seed={1 << 64} must be at most {2**64 - 1}"),
        (lambda: Generate(("a",), seed=1.0), "seed=1.0 must be a whole number"),
        (lambda: Generate(("a",), seed=None), "seed=None must be a whole number"),
        (lambda: Score(None, ("a",)), "prompt=None must be strings"),
        (lambda: Score(("a",), None), "continuations=None must be strings"),
        (lambda: Score(("a",), (1,)), "continuations holds 1"),
        (lambda: Score(("a",), ()), r"continuations=\(\) must be non-empty strings"),
        (lambda: Score(("a",), ("b", "")), "must be non-empty strings"),
        (lambda: Score(("a",), ""), "must be non-empty strings"),
        (lambda: Generate("a", chat="b"), "chat='b' must be a Chat"),
        (lambda: Score("a", "b", ("c",)), r"chat=\('c',\) must be a Chat"),
        (lambda: Chat(None), "turns=None must be pairs of a role and a text"),
        (lambda: Chat(()), r"turns=\(\) must be pairs of a role and a text"),
        (lambda: Chat((("user", 1),)), r"turns=\(\('user', 1\),\) must be pairs"),
        (lambda: Chat((("user", "a", "b"),)), "must be pairs of a role and a text"),
        (lambda: Chat((USER, USER)), r"the roles of the turns are \('user', 'user'\): they must"),
        (lambda: Chat((("system", "a"),)), "they must be system or nothing, then user and"),
        (lambda: Chat((USER, ("assistant", "b"))), "the last user"),
        (lambda: Chat((USER, ("system", "b"), USER)), "the last user"),
        (lambda: Chat((USER,), (1,)), "reply holds 1"),
        (lambda: Reward(None, "a"), "question=None must be a string"),
        (lambda: Reward("a", 3), "answer=3 must be a string"),
    ],
)
def test_bad_requests_are_named_in_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_conversations_are_kept_as_tuples():
    system, assistant = ("system", "s"), ("assistant", "b")
    for turns in ([USER], [system, USER], [USER, assistant, USER]):
        chat = Chat(map(list, turns), "Step:")
        assert chat == Chat(tuple(turns), ("Step:",)) and hash(chat)
        assert Generate("a", chat=chat).chat is chat


def test_one_string_is_one():
    assert Sampling(stop="Question:").stop == ("Question:",)
    assert Generate("a prompt").prefix_segments == ("a prompt",)
    assert Score("a prompt", "yes").continuations == ("yes",)
    assert Score(["a", "b"], iter(["c"])) == Score(("a", "b"), ("c",))


def test_numbers_of_numpy_become_plain():
    given = Sampling(np.int32(3), np.float32(0.5), np.float64(0.25), np.uint8(9), ["a"])
    assert given == Sampling(3, 0.5, 0.25, 9, ("a",))
    for name, kind in {
        "max_tokens": int,
        "temperature": float,
        "top_p": float,
        "top_k": int,
    }.items():
        assert type(getattr(given, name)) is kind
    request = Generate(("a",), np.int64(2), seed=np.uint64(2**64 - 1))
    assert (type(request.n), type(request.seed), request.seed) == (int, int, 2**64 - 1)
    assert Sampling(temperature=1, top_p=Fraction(1, 2)) == Sampling(temperature=1.0, top_p=0.5)
    with pytest.raises(FrozenInstanceError):
        given.top_k = 3


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, 1e-6, 1e6])
def test_bounds_are_within(temperature):
    assert Sampling(temperature=temperature).temperature == temperature
