"""`ds.s2sr`: one line per method; the work and its documentation live in the function of the same name."""
