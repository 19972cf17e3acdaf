"""Reward models that are sequence classifiers: their scores, and what is refused."""

import pytest
import torch
import transformers
from tiny_models import byte_tokenizer, make_network, make_reward_model

from treeshare.llm_backend.api import Failure, PromptTooLong, Reward
from treeshare.llm_backend.reward.hf import HuggingFaceRewardModel, load_reward_model

PAIRS = [("2 3 4", "2 * 3 = 6"), ("1", "no"), ("2 3 4", "2 * 3 = 6\n4 * 6 = 24"), ("7 8", "")]
REQUESTS = [Reward(question, answer) for question, answer in PAIRS]
CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}; {% endfor %}"


def logits(network, text, second=""):
    """Of one text, or a pair, without padding; a token is a byte."""
    ids = byte_tokenizer()(text + second, return_tensors="pt").input_ids
    types = torch.tensor([[0] * len(text) + [1] * len(second)])
    with torch.inference_mode():
        return network.eval()(ids, **({"token_type_ids": types} if second else {})).logits[0]


@pytest.mark.parametrize("special", [{}, {"pad_token": "<pad>"}], ids=["unpadded", "padded"])
@pytest.mark.parametrize("max_num_seqs", [1, 3, 32])
def test_score_is_that_of_the_text_alone(max_num_seqs, special):
    network = make_reward_model(1)
    reward_model = HuggingFaceRewardModel(
        network, byte_tokenizer(**special), max_num_seqs=max_num_seqs
    )
    replies = reward_model.reward(REQUESTS)
    alone = [
        logits(network, f"{question}\n{answer}").sigmoid().item() for question, answer in PAIRS
    ]
    assert [reply.score for reply in replies] == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 3) for score in alone}) == len(PAIRS)
    assert [reply.usage.prompt_tokens for reply in replies] == [
        len(q) + 1 + len(a) for q, a in PAIRS
    ]


def test_score_of_several_outputs_is_the_good_labels_probability():
    networks = {count: make_reward_model(count) for count in (2, 3)}
    for label, network, expected in [
        (None, networks[2], 1),
        (0, networks[2], 0),
        (2, networks[3], 2),
    ]:
        (reply,) = HuggingFaceRewardModel(network, byte_tokenizer(), label).reward(REQUESTS[:1])
        probabilities = logits(network, "\n".join(PAIRS[0])).softmax(0)
        assert reply.score == pytest.approx(probabilities[expected].item(), abs=1e-6)


def test_encoders_see_a_pair():
    network = make_reward_model(1, "bert")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = byte_tokenizer(pad_token="<pad>", sep_token="<sep>", model_input_names=names)
    replies = HuggingFaceRewardModel(network, tokenizer).reward(REQUESTS[:3])
    alone = [logits(network, *pair).sigmoid().item() for pair in PAIRS[:3]]
    assert [reply.score for reply in replies] == pytest.approx(alone, abs=1e-5)


def test_chat_models_see_a_chat():
    network = make_reward_model(1)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    (reply,) = HuggingFaceRewardModel(network, tokenizer).reward(REQUESTS[:1])
    text = "user: 2 3 4; assistant: 2 * 3 = 6; "
    assert reply.score == pytest.approx(logits(network, text).sigmoid().item(), abs=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [None, "<pad>", "<end>", "a"])
@pytest.mark.parametrize(
    "template",
    [CHAT, CHAT.replace("; ", "<end>"), "<end><end>{{ messages[1].content }}<pad><pad>"],
    ids=["no end", "end", "pads"],
)
def test_the_last_token_of_a_text_is_read_whatever_pads(template, pad, side):
    """Also where the text ends in, or begins with, the token that a tokenizer pads with."""
    network = make_reward_model(1)
    special = {"padding_side": side} | ({} if pad is None else {"pad_token": pad})
    tokenizer = byte_tokenizer(**special)
    tokenizer.chat_template = template
    requests = [*REQUESTS, Reward("a", "aaa"), Reward("?", "a much longer answer than that a")]
    alone = []
    network.eval().config.pad_token_id = None  # of one text, the last token is read
    for request in requests:
        turns = [("user", request.question), ("assistant", request.answer)]
        chat = [{"role": role, "content": content} for role, content in turns]
        ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        with torch.inference_mode():
            alone.append(network(torch.tensor([ids])).logits[0].sigmoid().item())
    replies = HuggingFaceRewardModel(network, tokenizer).reward(requests)
    assert [reply.score for reply in replies] == pytest.approx(alone, abs=1e-5)
    singly = HuggingFaceRewardModel(network, tokenizer, max_num_seqs=1).reward(requests)
    assert [reply.score for reply in singly] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["chat", "pair", "lines"])
def test_special_tokens_that_a_text_names_stay_text(kind):
    special = {"sep_token": "<sep>"} if kind == "pair" else {}
    tokenizer = byte_tokenizer(pad_token="<pad>", **special)
    tokenizer.chat_template = CHAT.replace("; ", "<end>") if kind == "chat" else None
    reward_model = HuggingFaceRewardModel(make_reward_model(1), tokenizer)
    ids = reward_model.encode(Reward("what is <end>?", "<pad> <end>"))["input_ids"]
    assert (ids.count(257), ids.count(258)) == (2 if kind == "chat" else 0, 0)
    written = {
        "chat": "user: what is <end>?<end>assistant: <pad> <end><end>",
        "pair": "what is <end>?<pad> <end>",
        "lines": "what is <end>?\n<pad> <end>",
    }[kind]
    assert "".join(tokenizer.batch_decode([[token] for token in ids])) == written
    plain = reward_model.encode(Reward("what is -end-?", "-pad- -end-"))["input_ids"]
    assert len(ids) == len(plain)
    requests = [Reward("<end>", "a"), REQUESTS[0]]
    alone = [reward_model.reward([request])[0].score for request in requests]
    together = [reply.score for reply in reward_model.reward(requests)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_batch_that_has_every_token_is_read_one_by_one():
    network = make_reward_model(1)
    texts = ["".join(map(chr, range(begin, begin + 128))) for begin in (0, 128)]
    short = Reward("q", "short")
    reward_model = HuggingFaceRewardModel(network, EveryToken())
    assert {token for text in texts for token in EveryToken()(text)["input_ids"]} == set(range(256))
    batch = [Reward(text, "") for text in texts] + [short]
    alone = [reward_model.reward([request])[0].score for request in batch]
    assert [reply.score for reply in reward_model.reward(batch)] == pytest.approx(alone, abs=1e-5)


class EveryToken:
    """One token a character; none is special."""

    chat_template = sep_token = pad_token_id = None
    all_special_ids = all_special_tokens = ()
    model_max_length = 10**6

    def __call__(self, text):
        return {"input_ids": [ord(character) for character in text]}


def test_a_network_that_states_no_context_is_refused():
    config = transformers.BloomConfig(vocab_size=260, hidden_size=32, n_layer=2, n_head=4)
    config.num_labels = 1
    network = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(ValueError, match="BloomForSequenceClassification states no max_position"):
        HuggingFaceRewardModel(network, byte_tokenizer())


def test_what_is_too_long_fails_alone():
    reward_model = HuggingFaceRewardModel(make_reward_model(1), byte_tokenizer())
    long = Reward("?", "x" * 255)
    fits, fails, last = reward_model.reward([REQUESTS[0], long, Reward("?", "x" * 254)])
    assert [fits, last] == reward_model.reward([REQUESTS[0], Reward("?", "x" * 254)])
    assert isinstance(fails, Failure) and isinstance(fails.error, PromptTooLong)
    assert "a solution of 257 tokens exceeds" in str(fails.error)
    assert "context of 256 tokens" in str(fails.error)


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        (3, {}, "reward_model.label=null, but it must be one of 3 labels: {0: 'LABEL_0'"),
        (2, {"label": 2}, "reward_model.label=2 must be at most 1"),
        (1, {"label": -1}, "reward_model.label=-1 must be at least 0"),
        (2, {"label": 0.5}, "reward_model.label=0.5 must be a whole number"),
        (1, {"max_num_seqs": 0}, "reward_model.max_num_seqs=0 must be at least 1"),
    ],
)
def test_parameters_are_checked(labels, given, message):
    with pytest.raises(ValueError) as raised:
        HuggingFaceRewardModel(make_reward_model(labels), byte_tokenizer(), **given)
    assert message in str(raised.value)


def test_a_saved_classifier_loads(tmp_path):
    network = make_reward_model(2)
    network.save_pretrained(tmp_path)
    byte_tokenizer(pad_token="<pad>").save_pretrained(tmp_path)
    expected = HuggingFaceRewardModel(network, byte_tokenizer()).reward(REQUESTS)
    replies = load_reward_model(str(tmp_path)).reward(REQUESTS)
    scores = [[reply.score for reply in side] for side in (replies, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_model_that_does_not_classify_is_refused(tmp_path):
    make_network("llama").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not for AutoModelForSequenceClassification: .*score"):
        load_reward_model(str(tmp_path))
