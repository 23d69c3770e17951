"""All that is kept of whoever asks, deleted at once: `/v1/data`."""
