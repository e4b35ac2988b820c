"""Live progress: pictures of a job for a terminal, lines for everything else."""
