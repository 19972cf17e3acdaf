import asyncio

import pytest

from treeshare.llm_backend.api import Failure, Generate, Score, Usage
from treeshare.search.budget import Budget, Meter
from treeshare.search.coroutines import CoroutineRunner, ask, end, gather


def request(name):
    return Score((name,), ("x",))


class Reply(str):
    """A reply that is a text, for what it costs nothing."""

    usage = Usage()


def drive(coroutine, meter=None):
    """Run to the end; the reply to a request is its prompt.

    Returns the runner and the names asked for in each step.
    """
    runner = CoroutineRunner(coroutine, meter)
    steps = []
    replies = []
    while requests := runner.step(replies):
        replies = [Reply("".join(r.prefix_segments)) for r in requests]
        steps.append(replies)
    return runner, steps


async def one(name):
    (reply,) = await ask([request(name)])
    return reply


async def many(*names):
    return [await one(name) for name in names]


async def fail(*names, error):
    for name in names:
        await one(name)
    raise error


def test_replies_come_back_in_the_order_asked():
    async def search():
        first = await ask([request("a"), request("b")])
        return first + await ask([request("c")])

    runner, steps = drive(search())
    assert runner.is_finished
    assert runner.result == ["a", "b", "c"]
    assert steps == [["a", "b"], ["c"]]


def test_gathered_requests_share_a_step_and_results_keep_their_order():
    async def search():
        return await gather(many("a1", "a2", "a3"), one("b"), many("c1", "c2"))

    runner, steps = drive(search())
    assert runner.result == [["a1", "a2", "a3"], "b", ["c1", "c2"]]
    assert steps == [["a1", "b", "c1"], ["a2", "c2"], ["a3"]]


def test_gathers_nest():
    async def pair(name):
        return await gather(one(name + "1"), one(name + "2"))

    async def search():
        return await gather(pair("a"), gather(one("b"), ask([request("c")])), one("d"))

    runner, steps = drive(search())
    assert runner.result == [["a1", "a2"], ["b", ["c"]], "d"]
    assert sorted(steps[0]) == ["a1", "a2", "b", "c", "d"]
    assert len(steps) == 1


def test_empty_ask_and_gather_answer_at_once():
    async def search():
        return [await ask([]), await gather(), await gather(gather(), many())]

    runner, steps = drive(search(), Meter(Budget(requests=0)))
    assert runner.result == [[], [], [[], []]]
    assert steps == []


def test_failing_child_closes_its_siblings_and_can_be_caught():
    closed = []

    async def sibling(name):
        try:
            return await gather(one(name), one(name))
        finally:
            closed.append(name)

    async def search():
        try:
            await gather(sibling("a"), fail("f", error=KeyError("boom")), sibling("b"), one("c"))
        except KeyError as error:
            return [str(error), await one("after")]

    runner, steps = drive(search())
    assert runner.result == ["'boom'", "after"]
    assert closed == ["a", "b"]
    assert steps == [["f", "c", "a", "a", "b", "b"], ["after"]]


def test_requests_of_closed_siblings_are_not_sent():
    async def search():
        first = gather(many("a"), fail(error=ValueError("at once")), many("b"))
        second = gather(many("c"), many("d"))
        try:
            await gather(first, second)
        except ValueError:
            return await many("e")

    async def outer():
        return await gather(search(), many("x", "y"))

    runner, steps = drive(outer())
    assert runner.result == [["e"], ["x", "y"]]
    assert [sorted(step) for step in steps] == [["e", "x"], ["y"]]


def test_uncaught_error_comes_out_of_step_and_closes_the_search():
    closed = []

    async def sibling():
        try:
            await many("a", "b")
        finally:
            closed.append(True)

    async def search():
        await gather(sibling(), fail("f", error=KeyError("boom")))

    runner = CoroutineRunner(search())
    assert len(runner.step()) == 2
    with pytest.raises(KeyError, match="boom"):
        runner.step([Reply("a"), Reply("f")])
    assert closed == [True]
    assert runner.is_done
    assert not runner.is_finished


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError()], ids=repr
)
def test_what_is_no_exception_passes_through_gathers_and_comes_out_as_one(error):
    passed = []

    async def sibling():
        try:
            await many("a", "b")
        finally:
            passed.append("sibling")

    async def between():
        try:
            await gather(sibling(), fail("f", error=error))
        finally:
            passed.append("between")

    async def search():
        await gather(between())

    runner = CoroutineRunner(search())
    assert len(runner.step()) == 2
    with pytest.raises(RuntimeError, match="the search raised") as raised:
        runner.step([Reply("a"), Reply("f")])
    assert raised.value.__cause__ is error
    assert raised.traceback[-1].name == "fail"
    assert passed == ["sibling", "between"]
    assert runner.is_done


def test_an_interrupt_comes_out_as_it_is():
    with pytest.raises(KeyboardInterrupt):
        drive(fail("a", error=KeyboardInterrupt()))


def test_requests_that_are_dropped_take_no_tokens():
    async def search():
        wide = ask([Generate(("a",), n=8)])
        try:
            await gather(wide, fail(error=KeyError("boom")))
        except KeyError:
            return await ask([Generate(("b",), n=8)])

    runner = CoroutineRunner(search(), Meter(Budget(tokens=10)))
    assert [request.prefix_segments for request in runner.step()] == [("b",)]


def test_failure_reply_is_raised_where_it_was_asked_for():
    async def search():
        try:
            await ask([request("a"), request("b")])
        except LookupError as error:
            return str(error)

    runner = CoroutineRunner(search())
    assert len(runner.step()) == 2
    assert runner.step([Reply("fine"), Failure(LookupError("too long"))]) == []
    assert runner.result == "too long"


def test_refused_requests_end_the_search_at_once():
    reached = []
    meter = Meter(Budget(requests=5))

    async def child(name):
        await one(name)
        try:
            await ask([request(name + "1"), request(name + "2")])
        finally:
            reached.append(name)
        reached.append("beyond")

    async def search():
        await gather(child("a"), child("b"))
        reached.append("beyond")

    runner, steps = drive(search(), meter)
    assert runner.is_done
    assert not runner.is_finished
    assert steps == [["a", "b"]]
    assert (meter.requests, meter.hit) == (2, "requests")
    assert reached == ["a", "b"]


def test_end_ends_the_whole_search_from_within_a_gather():
    async def child():
        await one("a")
        await end("nodes")

    async def search():
        await gather(child(), many("b", "c"))

    runner, steps = drive(search())
    assert runner.is_done
    assert not runner.is_finished
    assert steps == [["a", "b"]]


def test_search_must_be_a_coroutine():
    with pytest.raises(TypeError, match="must be a coroutine"):
        CoroutineRunner(lambda: None)


class Foreign:
    def __await__(self):
        yield "something else"


@pytest.mark.parametrize("gathered", [False, True])
def test_foreign_awaitable_is_a_type_error(gathered):
    async def search():
        try:
            await (gather(one("a"), Foreign()) if gathered else Foreign())
        except TypeError as error:
            return str(error)

    runner, _ = drive(search())
    assert runner.result == "cannot await 'something else' in a search"


def test_gathering_what_cannot_be_awaited_is_a_type_error():
    async def search():
        await gather(one("a"), [request("b")])

    with pytest.raises(TypeError, match="list"):
        drive(search())


def test_gather_can_be_awaited_only_once():
    async def search():
        both = gather(one("a"), one("b"))

        async def wait():
            return await both

        await gather(wait(), wait())

    with pytest.raises(RuntimeError, match="only once"):
        drive(search())


def test_step_wants_a_reply_to_every_request():
    runner = CoroutineRunner(one("a"))
    runner.step()
    with pytest.raises(ValueError, match="0 replies to 1 requests"):
        runner.step()
    runner.close()


def test_requests_are_handed_out_unchanged():
    wanted = Generate(("a", "b"), n=3, seed=7)

    async def search():
        return await ask([wanted])

    assert CoroutineRunner(search()).step() == [wanted]
