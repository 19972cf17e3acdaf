"""Chat templates with the traits of public ones, in words of our own, and tokenizers for them."""

import tokenizers
import transformers
from tiny_models import byte_tokenizer
from tiny_tokenizers import merging_tokenizer, sentencepiece_tokenizer

from treeshare.llm_backend.model.tokenizer import Tokenizer

MARKS = ["<begin>", "<stop>", "<system>", "<user>", "<bot>", "<role>", "<final>", "<message>"]
THOUGHT = ["<think>", "</think>"]  # added tokens that are not special, as in many vocabularies

TURN = "{{ '<' + m.role.replace('assistant', 'bot') + '>\n' + m.content + '<stop>\n' }}"
PLAIN = "{% for m in messages %}" + TURN + "{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<bot>\n' }}{% endif %}"

TEMPLATES = {
    "plain": PLAIN + ASK,
    "writes bos": "{{ bos_token }}" + PLAIN + ASK,
    # Its own system prompt, where the conversation has none.
    "default system": (
        "{% if messages[0].role != 'system' %}"
        "{{ '<system>\nYou are a parrot.<stop>\n' }}{% endif %}" + PLAIN + ASK
    ),
    # Blanks at the ends of a text are dropped.
    "strips": PLAIN.replace("m.content", "m.content | trim") + ASK,
    # The assistant's turns have an empty thought, the generation prompt has none.
    "empty thought in turns": (
        "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}"
        "{{ '<bot>\n<think>\n\n</think>\n\n' + m.content + '<stop>\n' }}{% else %}"
        + TURN
        + "{% endif %}{% endfor %}"
        + ASK
    ),
    # The generation prompt has an empty thought, if asked for; the turns have none.
    "empty thought in the prompt": (
        PLAIN + "{% if add_generation_prompt %}{{ '<bot>\n' }}{% if enable_thinking is defined and "
        "not enable_thinking %}{{ '<think></think>' }}{% endif %}{% endif %}"
    ),
    # The prompt opens a thought, nothing switches it off, and old thoughts are dropped.
    "open thought": (
        "{% for m in messages %}{% set text = m.content.split('</think>')[-1] "
        "if m.role == 'assistant' else m.content %}"
        + TURN.replace("m.content", "text")
        + "{% endfor %}{% if add_generation_prompt %}{{ '<bot>\n<think>\n' }}{% endif %}"
    ),
    # A reply stands in a channel, which the turns name and the prompt leaves to the model.
    "channel": (
        "{{ '<system>\nToday: ' + strftime_now('%Y-%m-%d') + '<stop>' }}{% for m in messages %}"
        "{% if m.role == 'assistant' %}{{ '<bot><final><message>' + m.content + '<stop>' }}"
        "{% else %}{{ '<' + m.role + '><message>' + m.content + '<stop>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
    ),
    # No system turn, and strict alternation.
    "strict": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('the roles must alternate, ' + m.role + ' came') }}{% endif %}"
        + TURN
        + "{% endfor %}"
        + ASK
    ),
    # A system turn is left out without a word.
    "drops system": "{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}" + ASK,
    # A turn has no end: the next role's mark ends it.
    "next role ends": (
        "{% for m in messages %}{{ '<' + m.role.replace('assistant', 'bot') + '>\n' + m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
    ),
    # A blank before the assistant's text, as in the oldest formats.
    "blank first": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ ' ' + m.content + '<stop>' }}{% else %}{{ '<user> ' + m.content + ' <bot>' }}"
        "{% endif %}{% endfor %}"
    ),
    # Marks for training around the assistant's text, and a loop that is left early.
    "training marks": (
        "{% for m in messages %}{% if loop.index > 99 %}{% break %}{% endif %}"
        "{% if m.role == 'assistant' %}{% generation %}" + TURN + "{% endgeneration %}"
        "{% else %}" + TURN + "{% endif %}{% endfor %}" + ASK
    ),
}


def with_template(hf, template):
    """The tokenizer with the marks of `TEMPLATES` as tokens, and a template."""
    hf.add_special_tokens(
        {"extra_special_tokens": [mark for mark in MARKS if mark not in hf.get_vocab()]}
    )
    hf.add_tokens([tokenizers.AddedToken(mark, normalized=False) for mark in THOUGHT])
    hf.chat_template = template
    return hf


def adding_bos():
    """A byte tokenizer that puts BOS before a text."""
    hf = byte_tokenizer(bos_token="<begin>")
    hf.add_special_tokens({"bos_token": "<begin>"})
    hf.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", hf.bos_token_id)]
    )
    return hf


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "bytes, bos": adding_bos,
    "merging": merging_tokenizer,
    "sentencepiece, legacy": lambda: sentencepiece_tokenizer("legacy"),
    "sentencepiece, first": lambda: sentencepiece_tokenizer("first"),
    "sentencepiece, never": lambda: sentencepiece_tokenizer("never"),
}


def chat_tokenizer(template="plain", kind="bytes"):
    """Ours, of a kind of `TOKENIZERS` and with a template of `TEMPLATES`, or that text."""
    hf = with_template(TOKENIZERS[kind](), TEMPLATES.get(template, template))
    assert isinstance(hf, transformers.PreTrainedTokenizerFast)
    return Tokenizer(hf, max(hf.get_vocab().values()) + 1)
