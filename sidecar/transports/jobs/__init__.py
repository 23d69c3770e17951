"""Jobs as a resource: `/v1/jobs`."""
