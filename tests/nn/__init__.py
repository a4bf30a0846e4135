"""Tests of eosr.nn, file for file."""
