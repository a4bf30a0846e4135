"""From scenes to weights: Wald's protocol, a plain single-process trainer, a state file that resumes."""
