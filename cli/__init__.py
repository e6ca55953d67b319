"""The `calltally` command."""
