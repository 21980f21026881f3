"""The command line: `gpuq`.

In: words. Out: text for people or JSON, and an exit code. A command line is read (`parse`), its command is found
(`dispatch`) and carried out (`commands`) through the client; `app` comes in where help or a complaint is needed.
Nothing is imported here, and every module imports late what it may not need: each of them is part of the time that a
command takes. May import: `gpuq.client`, `gpuq.errors`, `gpuq.domain` where it is light; `gpuq.settings`,
`gpuq.wiring` and `gpuq.scheduler` in the few commands that work without a daemon.
"""
