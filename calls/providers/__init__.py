"""One module per platform; each ends in one `provider` record."""
