"""Prometheus' own parsers on /metrics: `prometheus_scrape.py PORT`."""

import sys
import urllib.request

from common import tell
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families


def page(port: str, accept: str) -> tuple[str, str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked) as answer:
        return answer.headers["content-type"], answer.read().decode()


def main(port: str) -> None:
    found = {}
    for name, accept, parse in (
        ("text", "text/plain", text_string_to_metric_families),
        ("open", "application/openmetrics-text", openmetrics.text_string_to_metric_families),
    ):
        kind, text = page(port, accept)
        families = list(parse(text))
        found[name] = {
            "type": kind,
            "untyped": [one.name for one in families if one.type in ("unknown", "untyped")],
            "names": [one.name for one in families],
        }
    tell(found)


main(*sys.argv[1:])
