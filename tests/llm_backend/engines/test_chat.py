"""Conversations on engines: the same replies and scores as by transformers on the rendered text."""

from dataclasses import replace

import pytest
import torch
from chat_templates import TEMPLATES, with_template
from tiny_models import SIZES, byte_tokenizer, network_of
from transformers import LlamaConfig

from treeshare.llm_backend.api import Chat, Failure, Generate, Sampling, Score
from treeshare.llm_backend.chat.format import ChatFormat
from treeshare.llm_backend.engines.hf import HuggingFaceEngine
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.model.network import OWN_ATTENTION

ENGINES = {
    "tree": lambda model: TreeEngine(model, kv_tokens=600),
    "hf": lambda model: HuggingFaceEngine(model, 3),
}
GREEDY = Sampling(max_tokens=12, temperature=0)
TURNS = (("user", "Double: 1"), ("assistant", "Answer: 2"), ("user", "Double: 4"))
STEPS = ("Step:", " 1 2\nStep:")
QUESTIONS = ["What is the capital of France?", "Name three colours."]


@pytest.fixture(scope="module")
def chatty():
    """A tiny random model that is asked by a template, with its vocabulary as large as that."""
    hf = with_template(byte_tokenizer(), TEMPLATES["empty thought in turns"])
    size = max(hf.get_vocab().values()) + 1
    model = Model.of(network_of(LlamaConfig(**SIZES | {"vocab_size": size})), hf)
    return replace(model, chat=ChatFormat(model.tokenizer))


@pytest.fixture(params=ENGINES.values(), ids=ENGINES)
def engine(request, chatty):
    made = request.param(chatty)
    yield made
    made.close()


def serve(engine, *requests):
    asked, replies = dict(enumerate(requests)), {}
    while len(replies) < len(requests):
        replies |= engine.execute(asked)
        asked = {}
    return [replies[number] for number in range(len(requests))]


def rendered(model, turns=TURNS, reply=STEPS):
    """The tokens by transformers: the template's text and the reply's."""
    messages = [{"role": role, "content": text} for role, text in turns]
    hf = model.tokenizer.hf
    text = hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    text += model.chat.opening + "".join(reply)
    return hf(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def test_engines_say_how_they_ask(engine, chatty):
    assert engine.capabilities.chat == str(chatty.chat)
    assert engine.capabilities.scores and engine.capabilities.logprobs
    plain = TreeEngine(replace(chatty, chat=None))
    assert plain.capabilities.chat is None is MockEngine().capabilities.chat


def test_a_reply_is_that_of_transformers(engine, chatty):
    ids = rendered(chatty)
    chatty.network.use_attention(OWN_ATTENTION)
    expected = chatty.network.hf.generate(
        ids, max_new_tokens=12, do_sample=False, eos_token_id=sorted(chatty.network.end_tokens)
    )[0, ids.shape[1] :]
    (reply,) = serve(engine, Generate("plain", 1, GREEDY, chat=Chat(TURNS, STEPS)))
    ends = chatty.network.end_tokens
    kept = [int(token) for token in expected if int(token) not in ends]
    is_cut = reply.completions[0].finish_reason == "length"
    assert reply.completions[0].text == chatty.tokenizer.decode(kept, is_cut=is_cut)
    assert reply.usage.prompt_tokens == ids.shape[1]


def test_a_score_is_the_models_own_on_the_rendered_text(engine, chatty):
    texts = (" 4", " 8\nAnswer: 16", " sure")
    (reply,) = serve(engine, Score("plain", texts, Chat(TURNS, STEPS)))
    start = rendered(chatty).shape[1]
    chatty.network.use_attention(OWN_ATTENTION)
    for text, logprob, count in zip(texts, reply.logprobs, reply.num_tokens, strict=True):
        ids = rendered(chatty, reply=(*STEPS, text))
        with torch.no_grad():
            logprobs = chatty.network.hf(ids).logits[0].log_softmax(-1)
        own = logprobs[start - 1 : -1].gather(1, ids[0, start:, None]).sum()
        assert count == ids.shape[1] - start
        assert logprob == pytest.approx(float(own), abs=1e-3)


def test_plain_text_is_still_plain_text(engine, chatty):
    asked = Generate("Double: 4", 1, GREEDY)
    plain = TreeEngine(replace(chatty, chat=None), kv_tokens=600)
    expected = serve(plain, replace(asked, chat=Chat(TURNS)), asked)
    assert expected[0].completions == expected[1].completions
    assert serve(engine, asked)[0].completions[0].text == expected[1].completions[0].text


def test_a_conversation_that_cannot_be_asked_fails_alone(engine):
    good = Generate("", 1, GREEDY, chat=Chat(TURNS))
    bad = Generate("", 1, GREEDY, chat=Chat((("user", "half \ud83d"),)))
    scored = Score("", (" 1",), Chat(TURNS, ("half \ud83d",)))
    replies = serve(engine, bad, good, scored)
    assert isinstance(replies[0], Failure) and "surrogate" in str(replies[0].error)
    assert replies[1].completions[0].num_tokens == 12
    assert isinstance(replies[2], Failure)


def test_siblings_share_the_turns_and_the_steps(chatty):
    engine = TreeEngine(chatty, kv_tokens=600)
    serve(engine, Generate("", 1, GREEDY, chat=Chat(TURNS, STEPS[:1])))
    (reply,) = serve(engine, Generate("", 1, GREEDY, chat=Chat(TURNS, STEPS)))
    new = len(chatty.tokenizer.encode_after(STEPS[1]))
    assert reply.usage.unique_kv_tokens <= new + GREEDY.max_tokens + 1
    engine.close()


def test_smollm2_replies_as_by_transformers(smollm2):
    model = replace(smollm2, chat=ChatFormat(smollm2.tokenizer))
    chats = [Chat((("user", question),)) for question in QUESTIONS]
    engine = TreeEngine(model, kv_tokens=400)
    replies = serve(engine, *(Generate("", 1, GREEDY, chat=chat) for chat in chats))
    model.network.use_attention(OWN_ATTENTION)
    for chat, reply in zip(chats, replies, strict=True):
        ids = rendered(model, chat.turns, ())
        expected = model.network.hf.generate(ids, max_new_tokens=12, do_sample=False)
        text = model.tokenizer.hf.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
        assert reply.completions[0].text == text != ""
