"""Metrics, health of outcomes, logs, crash notes and traces."""
