"""Metrics, health of outcomes, and logs."""
