"""Shared jobs: fronts accept them, nodes run them."""
