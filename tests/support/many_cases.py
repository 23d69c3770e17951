"""Many small cases as one test: pytest takes some milliseconds for each test in each process. And
cases by their names."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest


def parametrize_by_name(arguments: str, cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Return the mark of a test with cases that have names."""
    return pytest.mark.parametrize(arguments, cases.values(), ids=cases)


def for_each(
    argument: str,
    cases: Iterable[Any] | Callable[[], Iterable[Any]],
    name: Callable[[Any], str] = str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test that takes a case as ``argument``: it is run with all of them, and fails
    with the faults of all that fail, each with the ``name`` of its case. Cases that take time to
    find are found by a function, when the test is run."""

    @functools.cache
    def found() -> list[Any]:
        return list(cases() if callable(cases) else cases)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run_all(**given: Any) -> None:
            every = found()
            assert every, "no case at all"
            faults: list[BaseException] = []
            for case in every:
                try:
                    test(**given, **{argument: case})
                except (Exception, pytest.fail.Exception) as fault:
                    fault.add_note(f"{argument}: {name(case)}")
                    faults.append(fault)
            if faults:
                raise BaseExceptionGroup(f"{len(faults)} of {len(every)} cases failed", faults)

        signature = inspect.signature(test)
        left = [one for key, one in signature.parameters.items() if key != argument]
        run_all.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        run_all.cases = found  # type: ignore[attr-defined]
        return run_all

    return decorate


def case_count(test: Callable[..., object]) -> int:
    """Return the number of cases that a test runs; one of any other test."""
    found = getattr(test, "cases", None)
    return len(found()) if found else 1
