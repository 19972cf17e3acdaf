"""The request log: what was answered once is answered again without an engine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from treeshare.llm_backend.api import Chat, Failure, Generate, Sampling, Score
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine, request_key
from treeshare.llm_backend.engines.tree import TreeEngine

REQUESTS = {
    0: Generate(("a ", "prompt"), 2, Sampling(max_tokens=3, stop=("\n",)), seed=1),
    1: Score(("a prompt",), (" x", " y")),
}


class Counting(MockEngine):
    served = 0

    def execute(self, requests):
        self.served += len(requests)
        return super().execute(requests)


def test_records_and_replays(tmp_path):
    log = tmp_path / "requests.jsonl"
    engine = Counting()
    recorder = ReplayEngine(log, engine)
    first = recorder.execute(REQUESTS)
    assert recorder.execute(REQUESTS) == first
    assert engine.served == 2
    recorder.close()
    assert ReplayEngine(log).execute(REQUESTS) == first


CHATS = {
    number: replace(request, chat=Chat((("user", "a"),), ("prompt",)))
    for number, request in REQUESTS.items()
}


class Asking(MockEngine):
    """An engine that asks in turns."""

    capabilities = replace(MockEngine.capabilities, chat="template 12345678")


def test_conversations_are_replayed_without_a_tokenizer(tmp_path):
    log = tmp_path / "requests.jsonl"
    recorder = ReplayEngine(log, Asking())
    first = recorder.execute(CHATS)
    recorder.close()
    assert ReplayEngine(log).execute(CHATS) == first
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["a prompt", "a prompt"]
    assert rows[0]["chat"] == {"turns": [["user", "a"]], "reply": ["prompt"]}
    other = replace(CHATS[0], chat=Chat((("user", "b"),)))
    (reply,) = ReplayEngine(log).execute({0: other}).values()
    assert isinstance(reply, Failure)


def test_turns_do_not_count_for_an_engine_that_does_not_ask_in_turns(tmp_path):
    """So logs of earlier versions, whose requests had no turns, are replayed."""
    log = tmp_path / "requests.jsonl"
    recorder = ReplayEngine(log, MockEngine())
    first = recorder.execute(REQUESTS)
    recorder.close()
    for engine in (None, Counting()):
        again = ReplayEngine(log, engine)
        assert again.execute(CHATS) == first
        assert engine is None or engine.served == 0
        again.close()
    assert "chat" not in log.read_text()


def test_an_engine_that_asks_in_turns_takes_no_replies_to_plain_text(tmp_path):
    log = tmp_path / "requests.jsonl"
    recorder = ReplayEngine(log, MockEngine())
    recorder.execute(REQUESTS)
    recorder.close()
    recorder = ReplayEngine(log, Asking())
    recorder.execute(CHATS)
    recorder.close()
    assert len(log.read_text().splitlines()) == 4


def test_the_key_of_a_request_stays():
    """By it the logs of earlier versions are found."""
    keys = ["d75e7311ecbf6b8f2800bc2822d17c46", "60813565056d0f55facc0d6bbaf43c3b"]
    assert [request_key(request) for request in REQUESTS.values()] == keys
    assert [request_key(request, in_turns=False) for request in CHATS.values()] == keys
    assert [request_key(request) for request in CHATS.values()] != keys


def test_extends_the_log(tmp_path):
    log = tmp_path / "requests.jsonl"
    recorder = ReplayEngine(log, Counting())
    recorder.execute({0: REQUESTS[0]})
    recorder.close()
    engine = Counting()
    recorder = ReplayEngine(log, engine)
    replies = recorder.execute(REQUESTS)
    replies |= recorder.execute({})
    recorder.close()
    assert set(replies) == {0, 1}
    assert engine.served == 1


def test_an_unknown_request_fails_its_search(tmp_path):
    log = tmp_path / "requests.jsonl"
    log.touch()
    reply = ReplayEngine(log).execute(REQUESTS)[1]
    assert isinstance(reply, Failure)
    assert "no reply to the prompt ending 'a prompt'" in str(reply.error)


def test_a_half_written_line_is_cut_off(tmp_path):
    log = tmp_path / "requests.jsonl"
    recorder = ReplayEngine(log, MockEngine())
    first = recorder.execute(REQUESTS)
    recorder.close()
    whole = log.read_bytes()
    log.write_bytes(whole[:-20])
    recorder = ReplayEngine(log, MockEngine())
    assert recorder.execute(REQUESTS) | recorder.execute({}) == first
    recorder.close()
    assert log.read_bytes() == whole


def test_a_bad_line_is_named(tmp_path):
    log = tmp_path / "requests.jsonl"
    log.write_text('{"key": "x"}\n')
    with pytest.raises(ValueError, match=r"requests\.jsonl:1: not a recorded reply"):
        ReplayEngine(log)


def test_a_missing_log_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ReplayEngine(tmp_path / "none.jsonl")


def test_the_key_covers_all_that_matters():
    base = Generate(("p",), 1, Sampling(), 0)
    others = [
        Generate(("q",), 1, Sampling(), 0),
        Generate(("p",), 2, Sampling(), 0),
        Generate(("p",), 1, Sampling(temperature=0.1), 0),
        Generate(("p",), 1, Sampling(), 1),
        Score(("p",), ("x",)),
    ]
    assert len({request_key(request) for request in [base, *others]}) == 6
    assert request_key(Generate(("", "p"))) == request_key(base)


def test_cancelled_requests_are_dropped_here_and_in_the_engine(tmp_path, llama):
    engine = TreeEngine(llama)
    recorder = ReplayEngine(tmp_path / "log", engine)
    long = Generate(("long",), 1, Sampling(max_tokens=30, temperature=0.0))
    assert recorder.execute({0: REQUESTS[1], 1: long}).keys() == {0}
    recorder.cancel([1, 7])
    assert (recorder.execute({}), recorder.pending) == ({}, {})
    engine.check_integrity()
    assert recorder.execute({1: REQUESTS[0]}).keys() == {1}
    recorder.close()
    assert ReplayEngine(tmp_path / "log").execute({1: REQUESTS[0]}).keys() == {1}


def test_when_the_engine_raises_nothing_is_pending(tmp_path):
    class Broken(MockEngine):
        def execute(self, requests):
            raise MemoryError

    recorder = ReplayEngine(tmp_path / "log", Broken())
    with pytest.raises(MemoryError):
        recorder.execute(REQUESTS)
    assert recorder.pending == {}
    recorder.close()


def test_any_text_can_be_recorded(tmp_path):
    request = Generate(("half \ud800 a pair",))
    recorder = ReplayEngine(tmp_path / "log", MockEngine())
    first = recorder.execute({0: request})
    recorder.close()
    assert ReplayEngine(tmp_path / "log").execute({0: request}) == first


def test_a_full_disk_is_an_error_that_names_the_log_and_still_closes_the_engine(
    tmp_path, monkeypatch
):
    """/dev/full refuses what is written to it, as a full disk does."""
    closed = []

    class Watched(MockEngine):
        def close(self):
            closed.append(True)

    log = tmp_path / "log.jsonl"
    log.symlink_to("/dev/full")
    monkeypatch.setattr(Path, "exists", lambda path: False)  # there is nothing to read in it
    engine = ReplayEngine(log, Watched(["a reply"]))
    with pytest.raises(OSError, match=f"No space left on device: '{log}'"):
        engine.execute({0: Generate(("prompt",))})
    with pytest.raises(OSError, match="No space left"):
        engine.close()
    assert closed == [True]
