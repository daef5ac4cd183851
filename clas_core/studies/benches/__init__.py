"""Timings of this machine; nothing is asserted."""
