"""Recordings over Wyoming, the protocol by which Home Assistant speaks to voice services."""
