"""What a run leaves: state, records, scores, weights."""
