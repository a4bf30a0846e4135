"""What is asked of the machine: whole files, locks, cores, memory, progress."""
