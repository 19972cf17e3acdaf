"""What the drafters guess, and what they refuse."""

from dataclasses import asdict

import pytest
from tiny_models import SIZES, byte_tokenizer, make_network

from treeshare.llm_backend.api import Generate, Sampling
from treeshare.llm_backend.engines.draft_model import ModelDrafter
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model, load_model
from treeshare.llm_backend.runtime.sequence import SequenceGroup
from treeshare.llm_backend.speculative.ngram import NgramDrafter


def draws_of(prompt, *generated):
    """Samples of one request that have got so far."""
    request = Generate(("",), len(generated), Sampling(max_tokens=64))
    draws = SequenceGroup(0, request, prompt, None, None, frozenset()).sequences()
    for draw, tokens in zip(draws, generated, strict=True):
        draw.generated += tokens
    return draws


def proposed(drafter, draw, limit=64):
    (continuations,) = drafter.propose([draw], [limit])
    return continuations


def test_the_last_occurrence_in_the_prompt_is_continued():
    (draw,) = draws_of((1, 2, 3, 4, 5, 1, 2, 6, 7, 8, 9, 9, 1, 2), [])
    assert proposed(NgramDrafter(num_tokens=3), draw) == [[6, 7, 8]]
    assert proposed(NgramDrafter(num_tokens=3), draw, limit=2) == [[6, 7]]
    assert proposed(NgramDrafter(num_tokens=3), draw, limit=0) == []


def test_longer_matches_come_first():
    (draw,) = draws_of((0, 1, 2, 3, 4, 5, 1, 2, 6, 0), [1, 2])
    assert proposed(NgramDrafter(num_tokens=2), draw) == [[3, 4]]  # 0 1 2 over 1 2
    assert proposed(NgramDrafter(num_tokens=2, branches=2), draw) == [[3, 4], [6, 0]]


def test_nothing_is_guessed_without_a_match():
    (draw,) = draws_of((1, 2, 3, 4), [5])
    assert proposed(NgramDrafter(), draw) == []
    assert proposed(NgramDrafter(shortest=1), draw) == []


def test_what_repeats_is_continued_beyond_its_end():
    (draw,) = draws_of((7, 1, 2, 3, 1, 2), [3, 1, 2])
    assert proposed(NgramDrafter(num_tokens=7), draw) == [[3, 1, 2, 3, 1, 2, 3]]


def test_wrong_guesses_make_the_next_fewer_and_right_ones_more():
    drafter = NgramDrafter(num_tokens=6, longest=1, shortest=1)
    (draw,) = draws_of((1, 2, 3, 4, 5, 6, 7, 8, 9, 1), [])
    assert proposed(drafter, draw) == [[2, 3, 4, 5, 6, 7]]
    draw.generated += [1]
    assert len(*proposed(drafter, draw)) == 1
    draw.generated += [1, 2]
    assert len(*proposed(drafter, draw)) == 3
    draw.generated += [3, 4, 5, 6]
    assert len(*proposed(drafter, draw)) == 6


def test_siblings_and_others_are_looked_up():
    drafter = NgramDrafter(num_tokens=3)
    first, second = draws_of((1, 2), [5, 6, 7, 8], [5, 6])
    (other,) = draws_of((3, 4), [9, 6, 7])
    drafter.propose([first, second, other], [9, 9, 9])
    assert proposed(drafter, second) == [[7, 8]]  # the sibling has got no further
    assert proposed(drafter, other) == [[8]]
    first.generated += [0, 0]
    drafter.propose([first], [9])
    assert proposed(drafter, second) == [[7, 8, 0]]


def test_a_sequence_is_forgotten_with_its_request():
    drafter = NgramDrafter()
    draws = draws_of((1, 2), [3])
    drafter.propose(draws, [9])
    assert drafter.num_sequences == 1
    draws.clear()
    assert drafter.num_sequences == 0


def test_the_index_of_all_texts_is_bounded(monkeypatch):
    monkeypatch.setattr("treeshare.llm_backend.speculative.ngram._MAX_SHARED", 100)
    drafter = NgramDrafter(longest=2)
    (draw,) = draws_of((0,), [])
    for token in range(1, 500):
        draw.generated.append(token)
        drafter.propose([draw], [1])
        assert drafter.num_shared <= 101
    (late, early) = draws_of((0,), [498], [2])
    late.generated[:0], early.generated[:0] = [497], [1]
    assert proposed(drafter, late) == [[499]]
    assert proposed(drafter, early) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tokens": 0}, r"engine\.speculative\.num_tokens=0 must be at least 1"),
        ({"shortest": 0}, r"engine\.speculative\.shortest=0 must be at least 1"),
        ({"branches": 0}, r"engine\.speculative\.branches=0 must be at least 1"),
        ({"longest": "4"}, r"engine\.speculative\.longest='4' must be a whole number"),
        ({"longest": 1}, r"engine\.speculative\.longest=1 must be at least shortest=2"),
    ],
    ids=str,
)
def test_bounds_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NgramDrafter(**arguments)


def test_the_model_drafter_has_bounds_too(llama):
    with pytest.raises(ValueError, match=r"engine\.speculative\.num_tokens=0 must be at least 1"):
        ModelDrafter(llama, num_tokens=0)


def test_another_vocabulary_is_refused_when_the_engine_is_made(llama):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<more>"])
    drafter = ModelDrafter(Model.of(make_network("llama"), tokenizer))
    message = r"must have the model's vocabulary: 1 tokens differ, such as '<more>'"
    with pytest.raises(ValueError, match=message):
        TreeEngine(llama, speculative=drafter)


def test_ids_the_model_does_not_have_are_refused(llama):
    network = make_network("llama")
    network.resize_token_embeddings(SIZES["vocab_size"] + 4)
    drafter = ModelDrafter(Model.of(network, byte_tokenizer()))
    with pytest.raises(ValueError, match="has 264 token ids, the model only 260"):
        TreeEngine(llama, speculative=drafter)


def test_what_the_smaller_model_has_no_room_for_is_not_guessed(llama):
    drafter = ModelDrafter(llama, num_tokens=4, kv_tokens=10)
    fits, nearly, over = (draws_of(tuple(range(n)), [1])[0] for n in (4, 8, 10))
    guesses = drafter.propose([fits, nearly, over], [9, 9, 9])
    assert [sum(map(len, each)) for each in guesses] == [4, 1, 0]
    drafter.engine.cache.check_integrity()


def test_a_model_keeps_its_first_layers(tmp_path, llama):
    make_network("gemma3").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert len(load_model(str(tmp_path), num_layers=2).network.hf.model.layers) == 2
    with pytest.raises(ValueError, match=r"model\.num_layers=4 must be at most 3"):
        load_model(str(tmp_path), num_layers=4)


def tiny_llama():
    return Model.of(make_network("llama"), byte_tokenizer())


@pytest.mark.parametrize("make", [NgramDrafter, lambda: ModelDrafter(tiny_llama(), num_tokens=2)])
def test_an_engine_that_forgets_drafts_as_a_new_one(make):
    engine = TreeEngine(tiny_llama(), speculative=make())
    request = Generate(("abc abc abc",), 2, Sampling(max_tokens=8, temperature=0.0))

    def stats_of_round():
        before = asdict(engine.stats())
        engine.execute({0: request})
        after = asdict(engine.stats())
        return [after[key] - before[key] for key in ("steps", "tokens", "drafted_tokens")]

    first = stats_of_round()
    assert stats_of_round() != first  # the prompt is known, and what was generated
    engine.reset_cache()
    assert engine.pool.slots.num_free == engine.pool.slots.num_slots
    assert stats_of_round() == first
