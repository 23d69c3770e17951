"""Whose voices are known: `/v1/people`."""
