"""A dict that forgets its oldest entries."""

from sidecar.bounded_dict import BoundedDict


def test_oldest_key_is_forgotten_and_one_set_again_is_the_newest() -> None:
    found = BoundedDict[str, int](2)
    found["a"], found["b"], found["a"], found["c"] = 1, 2, 3, 4
    assert list(found.items()) == [("a", 3), ("c", 4)]
