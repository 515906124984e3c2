"""Which split a record is of follows from its content alone."""

import hashlib
from collections import Counter

from pipelines.prepare.hash_split import HashSplit

KEYS = [hashlib.sha256(str(number).encode()).digest() for number in range(4000)]


def test_a_split_holds_about_its_fraction():
    found = Counter(map(HashSplit(0.2, 0.1).of, KEYS))
    assert abs(found["validation"] - 800) < 100 and abs(found["test"] - 400) < 80


def test_a_test_split_takes_nothing_from_validation():
    without, with_test = HashSplit(0.2, 0.0), HashSplit(0.2, 0.1)
    assert {without.of(key) for key in KEYS} == {"train", "validation"}
    assert all(without.of(key) == ("train" if with_test.of(key) == "test" else with_test.of(key)) for key in KEYS)
