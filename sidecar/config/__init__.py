"""Settings: flags, environment, files, defaults."""
