"""The configuration file: from YAML to frozen settings, all mistakes reported at once."""
