"""A service in the tests' own process, with an engine in a process of its own."""

from module_services import open_service as open_service
