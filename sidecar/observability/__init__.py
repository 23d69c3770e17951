"""Metrics, health of outcomes, logs and traces."""
