"""What `make dist` builds: wheel, sdist, and trees that run without an installation."""
