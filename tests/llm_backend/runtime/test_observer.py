"""An observer receives every forward, and the tokens of every sequence."""

from treeshare.llm_backend.api import Generate, Sampling, Score
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.runtime.observer import EngineObserver

REQUESTS = {
    5: Generate(("a shared start; ", "one"), 3, Sampling(max_tokens=6, temperature=1.0), seed=1),
    2: Generate(("a shared start; ", "two"), 1, Sampling(max_tokens=9, temperature=0.0)),
}


class Notes(EngineObserver):
    def __init__(self):
        self.steps, self.tokens = [], {}

    def on_step(self, step):
        self.steps.append(step)

    def on_sequence_end(self, request_id, sample_index, tokens):
        self.tokens[request_id, sample_index] = tuple(tokens)


def test_every_forward_is_reported_as_it_is_counted(llama):
    notes = Notes()
    engine = TreeEngine(llama, observer=notes)
    engine.submit(REQUESTS)
    while engine.has_unfinished:
        engine.step()
    stats = engine.stats()
    assert len(notes.steps) == stats.steps == 9
    assert sum(step.num_tokens for step in notes.steps) == stats.tokens
    assert sum(step.num_sequences for step in notes.steps) == stats.sequences
    assert sum(step.num_kv_entries for step in notes.steps) == stats.unique_kv_reads
    assert [step.is_decode for step in notes.steps] == [False, *[True] * 8]  # prompts, then tokens
    assert all(step.seconds > 0 for step in notes.steps)
    assert sum(step.seconds for step in notes.steps) <= stats.seconds


def test_the_tokens_of_every_sequence_are_reported_once(llama):
    notes, replies = Notes(), {}
    engine = TreeEngine(llama, observer=notes)
    engine.submit(REQUESTS)
    while engine.has_unfinished:
        replies |= engine.step()
    expected = {
        (i, k): done for i, reply in replies.items() for k, done in enumerate(reply.completions)
    }
    assert notes.tokens.keys() == expected.keys()
    for key, done in expected.items():
        tokens = [token for token in notes.tokens[key] if token not in llama.network.end_tokens]
        is_cut = done.finish_reason == "length"
        assert len(notes.tokens[key]) == done.num_tokens
        assert llama.tokenizer.decode(tokens, is_cut=is_cut) == done.text


def test_a_scored_prompt_is_no_decode_step(llama):
    notes = Notes()
    engine = TreeEngine(llama, observer=notes)
    engine.execute({0: Score(("a",), ("b",))})  # one token is computed
    assert [(step.num_tokens, step.is_decode) for step in notes.steps] == [(1, False)]
    assert notes.tokens == {}
