"""A test of many cases fails with each that fails, by its name."""

import pytest
from many_cases import case_count, for_each


def test_for_each_runs_all_cases_and_names_failed_ones() -> None:
    run = []

    @for_each("number", range(4), name="case {}".format)
    def fails(number: int) -> None:
        run.append(number)
        assert number % 2
        if number == 3:
            pytest.fail("three")

    assert case_count(fails) == 4
    assert case_count(test_for_each_runs_all_cases_and_names_failed_ones) == 1
    with pytest.raises(BaseExceptionGroup, match="3 of 4 cases failed") as caught:
        fails()
    notes = [fault.__notes__ for fault in caught.value.exceptions]
    assert notes == [["number: case 0"], ["number: case 2"], ["number: case 3"]]
    assert run == [0, 1, 2, 3]


def test_for_each_without_cases_fails() -> None:
    @for_each("number", list)
    def has_none(number: int) -> None:
        assert number

    with pytest.raises(AssertionError, match="no case"):
        has_none()
