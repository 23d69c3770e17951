"""Upstreams: other servers that recognize for this one."""
