"""Runs users' templates and conditions in processes of their own, where they can harm nothing else."""
