"""A dict that forgets its oldest entries."""

from sidecar.bounded_dict import BoundedDict


def test_oldest_key_of_full_dict_is_evicted_and_key_set_again_is_newest() -> None:
    found = BoundedDict[str, int](2)
    found["a"], found["b"], found["a"], found["c"] = 1, 2, 3, 4
    assert list(found.items()) == [("a", 3), ("c", 4)]
