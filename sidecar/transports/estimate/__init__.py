"""Whether a recording will fit, before it is sent."""
