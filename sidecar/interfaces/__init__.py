"""Interfaces and values that all layers share."""
