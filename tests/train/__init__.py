"""Tests of eosr.train, file for file."""
