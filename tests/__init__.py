"""Tests: contracts that every provider, metric and shell keeps; one file for each part; whole runs in e2e."""
