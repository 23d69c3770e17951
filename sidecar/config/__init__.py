"""Files with settings: ours (TOML), and those of another live server (YAML)."""
