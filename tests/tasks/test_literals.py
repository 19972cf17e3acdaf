"""Literals and arithmetic are accepted, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.tasks.literals import is_arithmetic, is_literal

INTEGRAL = {"names": ("x", "C", "E", "pi"), "functions": ("sin", "exp", "log", "sqrt")}


@pytest.mark.parametrize(
    "text",
    [
        *("1", "-1", "+2.5", "True", "None", "'text'", '"a" "b"', "[]", "()"),
        "[[1, 0], [0, 1]]",
        *(
            "['A', 'B']",
            "[['Q', '_'], ('_', 'Q')]",
            " [1,\n 2]",
            "(1, -2.5e3)",
            r"'\d'",
            "'é\u202e'",
        ),
    ],
)
def test_literals(text):
    assert is_literal(text)


@pytest.mark.parametrize(
    "text",
    [
        *("1 + 1", "[1] * 9", "'a' * 10**9", "exit", "exit()", "[exit()]", "[x for x in [1]]"),
        *("lambda: 1", "(a := 1)", "f'{exit()}'", "f''", "().__class__", "[1][0]", "{1}"),
        *("{'a': 1}", "*[1]", "[*[1]]", "1 if 1 else 2", "not 1", "--1", "1; 2", "1\n2"),
        *("x = 1", "", "b'a'", "1j", "...", "'\0'", "'\ud800'", "yield 1", "await x", "1 < 2"),
        *("-'a'", "__debug__", "[" * 100 + "]" * 100, "[" * 9_000 + "]" * 9_000, "9" * 5_000),
        "[" + "1, " * 20_000 + "]",
    ],
    ids=lambda text: repr(text)[:20],
)
def test_nothing_else_is_a_literal(text):
    assert not is_literal(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "4 + 4 * 5",
            "(10 - 4) * (13 - 9)",
            " 8/(3 - 8/3) ",
            "-2**-3",
            "7 % 4 // 2",
            "2.5e3",
            ".5",
        ),
        *("2**200", "(-8)**(1/3)", "9**9", "((1 + 2) * 3)**4", "2**(2*(3 + 1))"),
        "1e300 * 1e300",
    ],
)
def test_arithmetic(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "x**3/3 + C",
        "-2*x*exp(x) + E**(2*x) - sqrt(9*x**2 - 1)/3 + log(x**2 + 1) + pi",
        "sin(3*x + 1)**4*(5*x - 6)**10/50 + C",
        "x**x",
    ],
)
def test_arithmetic_with_names(text):
    assert is_arithmetic(text, **INTEGRAL)
    assert not is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        *("exit", "exit()", "S", "N(1)", "factorial(9)", "10!", "x", "x()", "sin(1, 2)"),
        *("sin(x=1)", "sin", "sin.__class__", "x.args", "x[0]", "().__class__", "(1, 2)"),
        *("[1]", "'1'", "1 'a'", "1 # 2", "1\n", "1\n2", "1 \\\n + 1", "1 < 2", "1 == 1"),
        *("1 and 2", "1 if 1 else 2", "~1", "1 << 9", "1 | 2", "1 @ 2", "1j", "True", "None"),
        *("...", "lambda: 1", "x := 1", "*x", "", "١ + 1", "１", "ｅｘｉｔ", "\0", "\ud800"),
        *("1 + 1\0", "0.2[3]", "007", "1__0", "f'1'", "{1}", "9**9**9", "9**9**9**9"),
        *("(9**9)**(9**9)", "2**-999999999", "2**(9*99)", "0**(-9**9**9)", "9**(1/(1/9**9))"),
        *("9**(99999 % 99998)", "9**-(-999)", "(2**200)**200", "1e999", "9" * 1_001),
        *("x**100000", "(x + 1)**100000", "sin(x)**(9**9)", "2**(1000*x)"),
        *("9**sin(10**9)**999", "*".join(["9**200"] * 9)),
        *("(" * 100 + "1" + ")" * 100 + "**2" * 99, "-" * 1_000 + "1"),
        *("(" * 1_000 + ")" * 1_000, "1" + "+1" * 2_000, "(" * 900 + "1" + "+1)" * 900),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_nothing_else_is_arithmetic(text):
    assert not is_arithmetic(text, **(INTEGRAL if text not in ("x", "sin") else {}))


@given(st.recursive(st.integers(-99, 99) | st.text(max_size=3) | st.booleans(), st.lists))
def test_every_written_value_is_a_literal(value):
    assert is_literal(repr(value))


pieces = st.sampled_from(
    ["9", "**", "*", "(", ")", "-", "/", "x", "sin", "exit", ".", "[", "_", " "]
)


@given(st.lists(pieces, max_size=40).map("".join))
def test_what_counts_as_arithmetic_is_quick_to_evaluate(text):
    """Python evaluates here what has only numbers."""
    if is_arithmetic(text):
        try:
            value = eval(text, {"__builtins__": {}})
        except (ZeroDivisionError, OverflowError):
            return
        assert len(str(value)) <= 1_000
