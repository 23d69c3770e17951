"""The command line. Without words it serves: that is how a host starts it."""

from sidecar.process import serve
from sidecar.settings import load_settings


def main():
    serve(load_settings())
