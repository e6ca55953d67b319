"""Faults, injected on purpose: nothing acknowledged is lost, nothing is counted twice."""
