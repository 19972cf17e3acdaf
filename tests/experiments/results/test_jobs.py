"""The records of jobs, in the command's process and in the folder of those of other processes."""

import pickle
import time
from threading import Event, Thread

import pytest
from omegaconf import OmegaConf

from treeshare.experiments.results.jobs import JobRecord, JobResult, Multirun, RecordList
from treeshare.experiments.results.summary import Totals

DONE = JobResult(0, table="a table", totals=Totals.of([], []), value=0.5)


@pytest.fixture
def directory(tmp_path):
    """The directory of a multirun that has begun."""
    config = {"hydra": {"sweep": {"dir": str(tmp_path / "outputs")}}, "optimize": "top1"}
    Multirun().on_multirun_start(OmegaConf.create(config))
    return tmp_path / "outputs"


def elsewhere(records):
    """The records as they arrive in another process."""
    return pickle.loads(pickle.dumps(records))


def test_jobs_of_the_commands_process_leave_nothing_on_disk(directory):
    records = RecordList()
    for number in (1, 0):
        record = JobRecord(number, [f"seed={number}"])
        with records.recording(record):
            record.result = DONE
    assert [job.number for job in records.collect()] == [0, 1]
    assert not directory.exists()


def test_record_of_another_process_is_the_one_that_was_written(directory):
    records = RecordList()
    record = JobRecord(3, ["seed=3"])
    with elsewhere(records).recording(record):
        assert not record.has_ended
        record.result, record.streams = DONE, ["here", "1:2", "1:3"]
    assert records.collect() == [record]
    assert list(directory.iterdir()) == []


def test_killed_job_has_no_result(directory):
    records = RecordList()
    with pytest.raises(KeyboardInterrupt), elsewhere(records).recording(JobRecord(0, [])):
        raise KeyboardInterrupt
    (job,) = records.collect()
    assert not job.has_ended
    assert (job.result.code, job.result.error) == (1, "ended without a result")


def test_command_waits_for_a_job_that_is_still_at_work(directory):
    """A launcher gives up at the first job that was killed, while others are at work."""
    records = RecordList()
    has_begun, record = Event(), JobRecord(0, [])

    def work():
        with elsewhere(records).recording(record):
            has_begun.set()
            time.sleep(0.2)
            record.result = DONE

    thread = Thread(target=work)
    thread.start()
    has_begun.wait()
    (job,) = records.collect()
    assert job.result == DONE
    thread.join()


def test_job_that_outlives_its_command_leaves_nothing(directory):
    records = RecordList()
    late, record = elsewhere(records), JobRecord(0, [])
    with late.recording(record):
        (job,) = records.collect(wait=False)  # the command was interrupted
        assert not job.has_ended
    with late.recording(JobRecord(1, [])):
        pass
    assert list(directory.iterdir()) == []


def test_best_parameters_are_those_of_this_multirun(directory):
    directory.mkdir()
    results = directory / "optimization_results.yaml"
    assert Multirun.latest.best() == ""
    results.write_text("name: optuna\nbest_params: {search.breadth: 3}\nbest_value: 0.25\n")
    assert Multirun.latest.best() == (
        f"best            search.breadth=3: top1 0.25\noptimized       {results}"
    )
    later = Multirun()
    later.on_multirun_start(
        OmegaConf.create({"hydra": {"sweep": {"dir": str(directory)}}, "optimize": "top1"})
    )
    assert later.best() == ""  # the file is of an earlier one
