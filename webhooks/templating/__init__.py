"""Users' templates and conditions run in processes that harm nothing else."""
