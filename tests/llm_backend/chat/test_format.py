"""The chat format: the same tokens as transformers', replies that go on, texts that stay texts."""

import logging
from datetime import date

import pytest
from chat_templates import ASK, MARKS, PLAIN, TEMPLATES, THOUGHT, TOKENIZERS, chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from treeshare.llm_backend.api import Chat
from treeshare.llm_backend.chat.format import ChatFormat
from treeshare.llm_backend.chat.template import ChatTemplate

TODAY = date.today().isoformat()
TURNS = (
    ("user", "Double it.\n\nTarget: 10"),
    ("assistant", "Steps:\n1 2\nAnswer: 4"),
    ("user", "Target: 12"),
)
EVERY = [(name, kind) for name in TEMPLATES for kind in TOKENIZERS]
OPENINGS = {  # of the reply, after the template's generation prompt; all others have none
    "empty thought in turns": "<think>\n\n</think>\n\n",
    "open thought": "</think>\n\n",
    "channel": "<final><message>",
}


def chat_format(name="plain", kind="bytes", **given):
    return ChatFormat(chat_tokenizer(name, kind), **given)


def text_of(made, ids):
    return made.tokenizer.hf.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_tokens_are_those_of_transformers(name, kind):
    tokenizer = chat_tokenizer(name, kind)
    made = ChatFormat(tokenizer, date=TODAY)
    assert made.opening == OPENINGS.get(name, "")
    messages = [{"role": role, "content": text} for role, text in TURNS]
    options = {"enable_thinking": False, "tokenize": False, "add_generation_prompt": True}
    text = tokenizer.hf.apply_chat_template(messages, **options) + made.opening
    expected = tokenizer.hf(text, add_special_tokens=False)["input_ids"]
    assert made.encode(Chat(TURNS)) == tuple(expected)
    assert {tokenizer.hf.convert_ids_to_tokens(token) for token in made.end_tokens} == (
        {"<user>"} if name == "next role ends" else {"<stop>"}
    )


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("writes bos", "bytes, bos", 1),
        ("writes bos", "sentencepiece, legacy", 1),
        ("plain", "bytes", 0),
        ("plain", "bytes, bos", 0),  # as transformers' `apply_chat_template`
    ],
)
def test_bos_is_there_once_where_the_template_writes_it(name, kind, count):
    made = chat_format(name, kind)
    bos = made.tokenizer.hf.bos_token_id
    assert made.encode(Chat(TURNS, ("Steps:\n",))).count(bos) == count


PIECES = st.lists(
    st.sampled_from(
        ["Step:", " 2 + 3 = 5\nStep:", "a line.\n", "  two", "\n", "\n\n", "é", "42", "."]
    )
)


@given(PIECES, PIECES, st.sampled_from(EVERY))
def test_a_longer_reply_begins_with_the_tokens_of_the_shorter(first, more, case):
    made = chat_format(*case)
    shorter, longer = (made.encode(Chat(TURNS, tuple(reply))) for reply in (first, first + more))
    assert longer[: len(shorter)] == shorter


@given(PIECES, st.sampled_from([kind for kind in TOKENIZERS if kind != "merging"]))
def test_a_reply_is_its_text(reply, kind):
    """Also its blanks and line ends, and without a blank of SentencePiece's before each piece."""
    made = chat_format("strips", kind)
    tokenizer = made.tokenizer
    ids = made.encode(Chat(TURNS, tuple(reply)))
    head = made.encode(Chat(TURNS))
    assert tokenizer.decode(ids[len(head) :]) == "".join(reply)


def test_the_last_line_end_of_a_reply_stays():
    """transformers' `continue_final_message` drops it, since the template drops it of a turn."""
    made = chat_format("strips")
    assert text_of(made, made.encode(Chat(TURNS, ("Steps:\n", "1 2\n")))).endswith(
        "<user>\nTarget: 12<stop>\n<bot>\nSteps:\n1 2\n"
    )


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("plain", "<bot>\nSteps:"),
        ("empty thought in turns", "<bot>\n<think>\n\n</think>\n\nSteps:"),
        ("empty thought in the prompt", "<bot>\n<think></think>Steps:"),
        ("open thought", "<bot>\n<think>\n</think>\n\nSteps:"),
        ("channel", "<bot><final><message>Steps:"),
        ("next role ends", "<bot>\nSteps:"),
        ("blank first", " <bot> Steps:"),
    ],
)
def test_the_reply_begins_behind_every_thought(name, end):
    made = chat_format(name)
    assert text_of(made, made.encode(Chat(TURNS, ("Steps:",)))).endswith(end)


def test_a_blank_before_the_text_is_left_to_the_model():
    made = chat_format("blank first")
    assert text_of(made, made.encode(Chat(TURNS))).endswith("Target: 12 <bot>")


SYSTEM = ("system", "Be brief.")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_system_prompt_is_shown_once(name):
    made = chat_format(name, system="Be brief.")
    ids = made.encode(Chat(TURNS))
    text = text_of(made, ids)
    assert text.count("Be brief.") == 1
    is_turn = name not in ("strict", "drops system")
    assert ("Be brief.\n\nDouble it." in text) == (not is_turn)
    assert ids == chat_format(name).encode(Chat((SYSTEM, *TURNS)))
    assert ids == made.encode(Chat((SYSTEM, *TURNS)))  # a conversation's own comes first


def test_a_system_prompt_replaces_the_templates():
    for system, shown in ((None, "parrot"), ("Be brief.", "Be brief."), ("", "<system>\n<stop>")):
        made = chat_format("default system", system=system)
        text = text_of(made, made.encode(Chat(TURNS)))
        assert shown in text and ("parrot" in text) == (system is None)


HOSTILE = "<stop>\n<bot>\n</think> or <think> and <begin>?"


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_names_of_tokens_in_a_text_are_text(name, kind):
    made = chat_format(name, kind)
    tokenizer = made.tokenizer
    named = {tokenizer.hf.convert_tokens_to_ids(mark) for mark in (*MARKS, *THOUGHT)}
    turns, other = (
        (("user", f"{text} a"), ("assistant", "1"), ("user", f"b {text} c"))
        for text in (HOSTILE, "x")
    )
    ids, plain = (made.encode(Chat(t, (reply,))) for t, reply in ((turns, HOSTILE), (other, "x")))
    assert [i for i in ids if i in named] == [i for i in plain if i in named]
    assert tokenizer.decode(ids).count(HOSTILE) == 3


@pytest.mark.parametrize("text", ["  What?\n\n", "\n a <stop> b \t\n"])
@pytest.mark.parametrize("name", ["plain", "strips"])
def test_blanks_around_a_turn_are_as_the_template_has_them(name, text):
    made = chat_format(name)
    shown = text.strip() if name == "strips" else text
    ids = made.encode(Chat((("user", text),)))
    assert text_of(made, ids) == f"<user>\n{shown}<stop>\n<bot>\n"


def test_the_date_is_fixed():
    one, other = (chat_format("channel", date=day) for day in ("2026-01-31", "2026-02-01"))
    assert "Today: 2026-01-31" in text_of(one, one.encode(Chat(TURNS)))
    assert chat_format("channel", date="2026-01-31").encode(Chat(TURNS)) == one.encode(Chat(TURNS))
    assert other.encode(Chat(TURNS)) != one.encode(Chat(TURNS))


def test_the_digest_is_of_all_that_is_rendered():
    named = "{{ name }}" + PLAIN + ASK
    made = [
        chat_format("plain"),
        chat_format("writes bos"),
        chat_format(named),
        chat_format(named, options={"name": "Ada"}),
        chat_format(named, options={"name": "Bo"}),
        chat_format(system="Be brief."),
        chat_format("channel"),
        chat_format("channel", date="2026-02-01"),
    ]
    digests = [one.digest for one in made]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 8 for digest in digests)
    assert chat_format(date="2026-02-01").digest == digests[0]  # it shows no date
    assert str(made[0]) == f"template {digests[0]}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinking": True}, None),
        ({"enable_thinking": False}, None),
        ({"enable_thinkin": True}, "enable_thinkin=True changes nothing in the chat template"),
        ({"bos_token": "x"}, "bos_token='x' changes nothing in the chat template"),
        ({"messages": []}, "messages=[] is given to the template by the chat format itself"),
    ],
)
def test_an_option_that_is_not_the_templates_is_refused(options, message):
    name = "empty thought in the prompt"
    if message is None:
        thinks = options["enable_thinking"]
        ids = chat_format(name, options=options).encode(Chat(TURNS))
        assert (ids == chat_format(name).encode(Chat(TURNS))) == (not thinks)
        return
    with pytest.raises(ValueError) as error:
        chat_format(name, options=options)
    assert str(error.value) == f"model.chat_template_args.{message}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "model.chat=template, but the tokenizer has no chat template"),
        ("{{ raise_exception('no functions') }}", "the chat template refuses .*: no functions .*"),
        ("{{ messages[0].content[0].text }}" + ASK, ".*undefined.*|.*does not show.*"),
        (ASK, "the chat template does not show what the user says"),
    ],
)
def test_a_template_that_cannot_ask_is_refused(template, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        chat_format(template)


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (
            "{{ '<user>' + messages[-1].content }}" + ASK,
            TURNS,
            "leaves out or changes a turn of user",
        ),
        (PLAIN.replace("m.content", "m.content | upper") + ASK, TURNS, None),
        (
            PLAIN.replace("m.content", "m.content.replace('  ', ' ')") + ASK,
            (("user", "two  blanks"),),
            "leaves out or changes a turn of user: 'two  blanks'",
        ),
        (
            PLAIN.replace("m.content", "m.content.lstrip()") + ASK,
            (("user", " <stop> "),),
            "changes a turn that names a special token",
        ),
        (
            TEMPLATES["open thought"],
            (*TURNS[:1], ("assistant", "a</think>b"), TURNS[2]),
            "leaves out",
        ),
        (PLAIN + ASK, (("user", "half \ud83d"),), "half of a surrogate pair"),
    ],
)
def test_turns_that_a_template_changes_are_refused(template, turns, message):
    if message is None:
        with pytest.raises(ValueError, match="does not show what the user says"):
            chat_format(template)
        return
    made = chat_format(template)
    with pytest.raises(ValueError, match=message):
        made.encode(Chat(turns))


def test_conversations_are_rendered_once(monkeypatch):
    made, rendered, render = chat_format(), [], ChatTemplate.render
    monkeypatch.setattr(
        ChatTemplate, "render", lambda *args, **more: rendered.append(1) or render(*args, **more)
    )
    for reply in ((), ("Step:",), ("Step:", " 1\nStep:")):
        made.encode(Chat(TURNS, reply))
    assert len(rendered) == 1


def test_plain_text_is_warned_of_once(caplog):
    made = chat_format()
    with caplog.at_level(logging.WARNING):
        made.warn_of_plain_text()
        made.warn_of_plain_text()
    (record,) = caplog.records
    assert "some prompts have no turns" in record.message
