"""The command line: flags, progress, and the `main` of every command and study."""
