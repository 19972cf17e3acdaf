"""Chat templates: rendered as transformers renders them, in a sandbox, and without a clock."""

from datetime import date

import pytest
from chat_templates import PLAIN, TEMPLATES, chat_tokenizer

from treeshare.llm_backend.chat.template import ChatTemplate

TURNS = (("user", "What is 2 + 2?"), ("assistant", "Answer: 4"), ("user", "And 3 < 4, é?"))
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]


def render(text, turns=TURNS, options=None, day="2026-01-31", asks=True):
    template = ChatTemplate(text, {"bos_token": "<begin>"}, day)
    return template.render(turns, options or {}, add_generation_prompt=asks)


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_it_is_rendered_as_by_transformers(name, asks):
    hf = chat_tokenizer(name, "bytes, bos").hf
    expected = hf.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=asks)
    assert render(TEMPLATES[name], day=date.today().isoformat(), asks=asks) == expected


def test_today_is_the_given_date():
    text = "{{ strftime_now('%d %b %Y') }}"
    assert render(text) == render(text) == "31 Jan 2026"
    assert ChatTemplate(text, {}, "2026-01-31").prints_date
    assert not ChatTemplate(PLAIN, {}, "2026-01-31").prints_date


@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "", None, 5])
def test_what_is_no_date_is_refused(day):
    with pytest.raises(ValueError, match=f"^model.chat_date={day!r} must be a date such as 20"):
        render(PLAIN, day=day)


def test_what_is_no_template_is_refused():
    with pytest.raises(ValueError, match=r"^the chat template cannot be read: .*endfor"):
        render("{% for m in messages %}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('Only\none  turn!') }}", "Only one turn!"),
        ("{{ messages[7].content + 'x' }}", "list object has no element 7"),
        ("{{ 1 // 0 }}", ".*zero.*"),
        ("{{ ''.__class__.__mro__ }}", ".*unsafe.*"),
        ("{{ messages.append(1) }}", ".*unsafe.*"),
        ("{{ dict.mro() }}", ".*no attribute.*"),
        ("{{ raise_exception('x' * 999) }}", r"x{200}\.\.\."),
    ],
)
def test_a_template_that_fails_is_one_line(text, reason):
    line = rf"^the chat template refuses the conversation: {reason} \(model\.chat=flat asks in "
    with pytest.raises(ValueError, match=line) as error:
        render(text)
    assert "\n" not in str(error.value)


def test_json_is_not_escaped_for_html():
    assert render("{{ messages[2] | tojson }}") == '{"role": "user", "content": "And 3 < 4, é?"}'
    assert render("{{ {'b': 1} | tojson(indent=1) }}") == '{\n "b": 1\n}'
    assert render("{{ dict(a=1) | tojson }}") == '{"a": 1}'


def test_what_is_set_between_training_marks_stays_there():
    assert render(
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"
    ) == ("21")
