"""The store and everything that reads it: SQL, metrics, reports."""
