"""The life of `run`: wait for the mount, watch, reload, run growths, end."""
