"""The processes of a worker.

supervisor   the one that was started: it starts the others, and starts anew what dies
child        a process as its parent sees it, which kills it where it hangs
dispatcher   RQ's worker of our queue: wake-ups let it dispatch
sender       owns lanes, and sends
suspects     tries alone what may have killed a worker
inline       all of it in one process
"""
