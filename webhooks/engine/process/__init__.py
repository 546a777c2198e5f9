"""Runs the processes of a worker.

supervisor: starts all processes, and replaces dead ones.
child: a process as its parent sees it.
dispatcher: RQ's worker of our queue, which dispatches.
sender: owns lanes, and sends.
suspects: tries suspects alone.
inline: dispatches and sends in one process, for an `rqworker` that ends by itself.
"""
