"""The processes of a worker.

supervisor   the one that was started: it starts the others, and starts anew what dies
dispatcher   RQ's worker of our queue: wake-ups let it dispatch
sender       owns lanes, and sends
suspects     tries what was in hand when a process stopped
inline       all of it in one process
"""
