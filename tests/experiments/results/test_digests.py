"""Digests are equal for equal values and files, and differ for others."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from treeshare.experiments.results.digests import (
    data_digests,
    digest_of,
    file_digest,
    model_digests,
)


@dataclass
class Data:
    numbers: object


class Opaque:
    pass


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, "1"),
        ((1, 2), (2, 1)),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (Data((1,)), Data((2,))),
        (np.arange(3), np.arange(4)),
        (Fraction(1, 2), Fraction(1, 3)),
        ("\ud800", "\ud801"),
        (b"a", b"b"),
    ],
)
def test_other_data_have_another_digest(one, other):
    assert digest_of(one) != digest_of(other)
    assert digest_of(one) == digest_of(one)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"b": 1, "a": {3, 2, 1}},
        lambda: Data([np.float32(0.5), None, True]),
        lambda: Opaque(),
        lambda: [lambda: 1, Opaque],
    ],
)
def test_equal_data_have_equal_digests(make):
    keep = make()
    assert digest_of(keep) == digest_of(make())


def test_order_of_a_mapping_does_not_count():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_large_file_is_sampled_from_its_first_to_its_last_byte(tmp_path):
    data = bytearray(np.random.default_rng(0).bytes(20 * 2**20))
    path = tmp_path / "weights"

    def after(change):
        path.write_bytes(data if change is None else change(bytearray(data)))
        return file_digest(path)

    def first(changed):
        changed[0] ^= 1
        return changed

    def last(changed):
        changed[-1] ^= 1
        return changed

    versions = [None, first, last, lambda changed: changed[::-1], lambda changed: changed[:-1]]
    assert len({after(change) for change in versions}) == len(versions)
    assert after(None) == after(None)


def test_every_file_that_makes_a_model_counts(tmp_path):
    for name in ("config.json", "model.safetensors", "modeling.py", "README.md", "a.gguf"):
        (tmp_path / name).write_text(name)
    (tmp_path / "onnx.json").mkdir()
    names = {"config.json", "model.safetensors", "modeling.py", "a.gguf"}
    assert model_digests(tmp_path).keys() == names
    assert model_digests(tmp_path / "a.gguf").keys() == {"a.gguf"}


def test_data_are_a_file_or_all_files_of_a_folder(tmp_path):
    (tmp_path / "set/test").mkdir(parents=True)
    (tmp_path / "set/info.json").write_text("{}")
    (tmp_path / "set/test/data").write_text("1")
    assert data_digests(tmp_path / "set").keys() == {"info.json", "test/data"}
    assert data_digests(tmp_path / "set/info.json") == {
        "info.json": file_digest(tmp_path / "set/info.json")
    }
