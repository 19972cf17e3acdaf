"""Random requests to a tree engine, a third of them bad in every way; also a script.

`PYTHONPATH=tests/support python tests/support/request_fuzz.py 10000 [seed]` serves as many and
prints what became of them. The good ones' replies must be those of a run without the bad ones; the
engine must stay whole.
"""

import random
import sys

import torch
import transformers
from tiny_models import byte_tokenizer, make_network

from treeshare.llm_backend.api import Failure, Generate, Reward, Sampling, Score
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model

NAN = "~"  # its embedding is NaN
SURROGATES = ["\ud800", "\udc00", "a\ud83d", "\udfff!"]


class Raising(transformers.PreTrainedTokenizerFast):
    """Fails on some texts, drops blanks at the end of others, and cannot decode a token."""

    def __call__(self, texts, **options):
        if "%" in str(texts):
            raise RuntimeError("this text\nis not to my taste")
        if "^" in str(texts):
            raise BaseException("a panic")
        one = isinstance(texts, str)
        cleaned = [text.rstrip("\v") for text in ([texts] if one else texts)]
        return super().__call__(cleaned[0] if one else cleaned, **options)


def fuzz_model():
    """With a token of a NaN embedding and one beyond the embedding."""
    hf = byte_tokenizer(additional_special_tokens=["<sep>"])
    hf.add_tokens(["<1>", "<2>", "<3>", "<4>", "<far>"])
    tokenizer = Raising(tokenizer_object=hf.backend_tokenizer, eos_token="<end>")
    model = Model.of(make_network("llama"), tokenizer)
    (nan,), hf = model.tokenizer.encode(NAN), model.network.hf
    with torch.no_grad():
        hf.get_input_embeddings().weight[nan] = float("nan")
        hf.get_output_embeddings().weight[nan] = 0  # rarely drawn
    return model


def good_request(rng):
    shared = rng.choice(["", "a shared start; ", "a shared start; of two ", "日本 <end> "])
    prompt = (shared, rng.choice(["one", "two", "three 4", "x" * rng.randint(1, 30)]))
    if rng.random() < 0.4:
        ends = rng.sample([" yes", " no", "yes", "4", "42", "é", "<sep>", " maybe so"], 3)
        return Score(prompt, tuple(ends[: rng.randint(1, 3)]))
    sampling = Sampling(
        max_tokens=rng.randint(1, 9),
        temperature=rng.choice([0.0, 1e-6, 0.7, 1.0, 1e6]),
        top_p=rng.choice([1.0, 0.9, 1e-9]),
        top_k=rng.choice([None, 1, 5, 1 << 31]),
        stop=rng.choice([(), ("e",), (" ", "\n"), ("<sep>",), "xy"]),
    )
    return Generate(prompt, rng.randint(1, 4), sampling, rng.choice([0, 7, (1 << 64) - 1]))


def bad_request(rng):
    """One that must fail, and alone. NaN prompts share their start with good ones."""
    bad = rng.choice([*SURROGATES, "%", "^", "<far>", NAN, f"a shared start; {NAN}x", "x" * 400])
    inside = ("a shared start; ", bad, rng.choice(["", " and on"]))
    short = Sampling(max_tokens=rng.randint(1, 5), temperature=rng.choice([0.0, 1.0]))
    return rng.choice(
        [
            Generate(inside, rng.randint(1, 3), short),
            Score(inside, (" yes", " no")),
            Score(("a shared start; ",), (" yes", bad + " ")),
            Score(("one",), (" yes", "\v")),  # no tokens
            Generate(("",), 1, short),
            Generate(("one",), 1, Sampling(max_tokens=1 << 31)),
            Score(("one",), tuple(f"{i}{'y' * 60}" for i in range(9))),  # beyond the pool
            Reward("one", "two"),
            None,
            "one",
        ]
    )


def serve(engine, requests, rng, each_call=8):
    """Replies by request id; `execute` gets a few new requests each time and must not raise."""
    waiting, replies = list(requests.items()), {}
    while len(replies) < len(requests):
        count = rng.randint(1, each_call)
        new, waiting = dict(waiting[:count]), waiting[count:]
        answered = engine.execute(new)
        assert answered and not answered.keys() & replies.keys()
        replies |= answered
        if rng.random() < 0.1:
            engine.check_integrity()
    assert engine.execute({}) == {}
    engine.check_integrity()
    return replies


def fuzz(num_requests, seed):
    """Serve random requests and compare the good ones' replies with those of a clean run.

    Returns:
        Counts by kind of reply, the bad requests' failures by class of error.
    """
    rng, model = random.Random(seed), fuzz_model()
    good, bad = {}, {}
    for number in range(num_requests):
        is_bad = rng.random() < 1 / 3
        (bad if is_bad else good)[number] = (bad_request if is_bad else good_request)(rng)
    limits = {"kv_tokens": 400, "max_num_seqs": 12, "max_num_batched_tokens": 48}
    clean = serve(TreeEngine(model, **limits), good, rng)
    everything = dict(sorted((good | bad).items()))
    replies = serve(TreeEngine(model, **limits), everything, rng)
    counts = {"good": len(good), "bad": len(bad)}
    for number, request in good.items():
        assert_same(request, replies[number], clean[number])
    for number, request in bad.items():
        reply = replies[number]
        assert isinstance(reply, Failure), (request, reply)
        assert "\n" not in str(reply.error) and len(str(reply.error)) < 400
        name = type(reply.error).__name__
        counts[name] = counts.get(name, 0) + 1
    return counts


def assert_same(request, reply, expected):
    assert type(reply) is type(expected), (request, reply, expected)
    if isinstance(request, Score):
        assert reply.num_tokens == expected.num_tokens
        for one, other in zip(reply.logprobs, expected.logprobs, strict=True):
            assert abs(one - other) < 1e-3, (request, reply, expected)
    elif isinstance(reply, Failure):  # it drew the token of NaN itself
        assert str(reply.error) == str(expected.error)
    else:
        texts = [[done.text for done in r.completions] for r in (reply, expected)]
        assert texts[0] == texts[1], (request, texts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
