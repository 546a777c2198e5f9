from pathlib import Path


def sockets_to(port: int) -> int:
    """Count sockets that are connected to a port of this machine, and not closed on the near side."""
    rows = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    return sum(row[2].endswith(f':{port:04X}') and row[9] != '0' for row in rows)
