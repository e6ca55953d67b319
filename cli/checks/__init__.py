"""The checks of `calltally doctor`, one module each."""
