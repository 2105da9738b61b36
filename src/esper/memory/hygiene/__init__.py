"""What is wrong with the content of a memory: one kind of finding a file."""
