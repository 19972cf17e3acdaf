"""Rotary factors that depend on a text's length: one choice for all texts, whatever is beside them.

The tiny networks change their factors at 32 tokens.
"""

import copy
import logging

import pytest
import torch
import transformers
from dense_check import Dense
from tiny_models import SIZES, byte_tokenizer, longrope, make_network, network_of

from treeshare.llm_backend.api import Generate, PromptTooLong, Reward, Sampling, Score
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model
from treeshare.llm_backend.reward.hf import HuggingFaceRewardModel

TEXT = "abcdefghij" * 6
SHORT, LONG = Score((TEXT[:20],), (" one",)), Score(("zz" + TEXT[:50],), (" one",))
GREEDY = Generate((TEXT[:24],), 1, Sampling(max_tokens=20, temperature=0.0))
LENGTH_DEPENDENT = ["longrope", "phi3 longrope", "phimoe longrope", "dynamic"]


def serve(engine, *requests):
    replies, new = {}, dict(enumerate(requests))
    while len(replies) < len(requests):
        replies |= engine.execute(new)
        new = {}
    return [replies[i] for i in range(len(requests))]


def logprob(engine, request):
    return serve(engine, request)[0].logprobs[0]


@pytest.fixture(scope="module", params=LENGTH_DEPENDENT)
def model(request):
    return Model.of(make_network(request.param), byte_tokenizer())


def test_a_score_does_not_depend_on_its_neighbours(model):
    alone, beside = logprob(TreeEngine(model), SHORT), serve(TreeEngine(model), SHORT, LONG)[0]
    assert beside.logprobs[0] == pytest.approx(alone, abs=1e-4)


def test_a_score_does_not_depend_on_the_parts_of_its_prefill(model):
    whole, parts = (logprob(TreeEngine(model, max_num_batched_tokens=n), LONG) for n in (1024, 16))
    assert parts == pytest.approx(whole, abs=1e-4)


def test_a_score_does_not_depend_on_the_prefix_that_is_kept(model):
    engine, later = TreeEngine(model), Score((TEXT[:20] + "!",), (" one",))
    serve(engine, SHORT, LONG)
    assert logprob(engine, later) == pytest.approx(logprob(TreeEngine(model), later), abs=1e-4)


def test_a_reply_that_crosses_the_border_is_the_same_from_any_start(model):
    """24 tokens and 20 more: the last ones are generated with KV from before the border."""
    (alone,), (beside, *_) = (
        serve(TreeEngine(model), GREEDY),
        serve(TreeEngine(model), GREEDY, LONG),
    )
    dense = Dense(model).greedy(
        model.tokenizer.encode(TEXT[:24]), 20
    )  # a forward of the whole text a token
    assert len(dense) == 20 and model.network.end_tokens.isdisjoint(dense)
    assert alone.completions[0].text == beside.completions[0].text == model.tokenizer.decode(dense)


@pytest.mark.parametrize(
    ("context", "length"), [(None, 60), (32, 32)], ids=["long factors", "short factors"]
)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("family", ["longrope", "dynamic"])
def test_the_context_chooses_the_factors_that_transformers_takes(family, fused, context, length):
    """Of a text beyond the border, transformers' own forward takes the long ones."""
    network = make_network(family)
    tokens = byte_tokenizer().encode(TEXT[:length])
    with torch.inference_mode():
        expected = copy.deepcopy(network)(torch.tensor([tokens])).logits[0].log_softmax(-1)
    loaded = Model.of(network, byte_tokenizer(), fused=fused, context=context)
    assert loaded.network.context_length == (context or 256)
    request = Score((TEXT[: length - 1],), (TEXT[length - 1],))
    assert logprob(TreeEngine(loaded), request) == pytest.approx(
        expected[-2, tokens[-1]].item(), abs=1e-4
    )
    if fused:
        cos, _ = loaded.network.merged.rotary
        assert len(cos) == loaded.network.context_length


def test_beyond_a_chosen_context_a_text_is_refused_alone():
    loaded = Model.of(make_network("phi3 longrope"), byte_tokenizer(), context=32)
    short, long = serve(TreeEngine(loaded), SHORT, LONG)
    assert short.logprobs and isinstance(long.error, PromptTooLong) and "32" in str(long.error)


@pytest.mark.parametrize("context", [0, 257, -1, 32.0, "32", True])
def test_a_context_that_the_network_has_not_is_refused(context):
    with pytest.raises(ValueError, match=f"model.context={context!r} must be from 1 to 256"):
        Model.of(make_network("llama"), byte_tokenizer(), context=context)


@pytest.mark.parametrize(("context", "messages"), [(None, 1), (32, 0)])
def test_the_choice_of_long_factors_is_said(context, messages, caplog):
    with caplog.at_level(logging.WARNING, "treeshare"):
        Model.of(make_network("phi3 longrope"), byte_tokenizer(), context=context)
    assert len(caplog.messages) == messages
    assert all("context is 256 tokens; one of at most 32 tokens" in m for m in caplog.messages)


def test_a_network_that_is_loaded_again_takes_the_new_choice():
    network = make_network("phi3 longrope")
    expected = [
        logprob(
            TreeEngine(Model.of(make_network("phi3 longrope"), byte_tokenizer(), context=n)), SHORT
        )
        for n in (256, 32)
    ]
    found = []
    for context in (256, 32):
        network.set_attn_implementation("eager")
        found.append(
            logprob(TreeEngine(Model.of(network, byte_tokenizer(), context=context)), SHORT)
        )
    assert found == pytest.approx(expected, abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_a_reward_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    config = transformers.Phi3Config(**SIZES | {"pad_token_id": 258}, **longrope(), num_labels=1)
    network = transformers.AutoModelForSequenceClassification.from_config(config)
    reward_model = HuggingFaceRewardModel(network, byte_tokenizer())
    short, long = Reward("q", "short"), Reward("q", "long" * 20)
    (alone,), (beside, _) = reward_model.reward([short]), reward_model.reward([short, long])
    assert beside.score == pytest.approx(alone.score, abs=1e-5)


def test_per_layer_types_are_fixed_too():
    rope = longrope()["rope_parameters"] | {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = transformers.Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": rope,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )
    network = network_of(config)
    try:
        for _ in range(2):  # transformers 5.17 raises at the second text of more than 32 tokens
            network(torch.zeros(1, 40, dtype=torch.int64))
    except UnboundLocalError as error:
        pytest.skip(f"transformers {transformers.__version__} cannot run the network: {error}")
    loaded = Model.of(network, byte_tokenizer())
    alone, beside = logprob(TreeEngine(loaded), SHORT), serve(TreeEngine(loaded), SHORT, LONG)[0]
    assert beside.logprobs[0] == pytest.approx(alone, abs=1e-4)
