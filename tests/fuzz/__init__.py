"""Changed samples of what comes from outside: no parser may raise what it does not declare."""
