"""From words to what is wanted.

In: the words of a command line, and files that they name. Out: `Args`, the JSON of a submission, ids of jobs, or a
UsageError. `command_table` holds every command. May import: `gpuq.domain`, `gpuq.errors`, and the client for words such
as `last`, whose meaning the daemon knows.
"""
