"""One file for each command. They read options, call services, and print the results."""
