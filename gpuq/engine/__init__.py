"""The road of a job, one room after the other; each room may import those before it in its life and below it.

    intake     a submission is checked and becomes durable rows
    hot        the hot queue is told; what it holds can be rebuilt from SQL at any time
    snapshot   queue, GPUs and rules as the scheduler is shown them (`gpuq.scheduler` then says who starts)
    claim      the plan comes true: leases, then one guarded transaction
    attempt    a supervisor is launched, adopted, watched and asked to stop
    outcome    what became of it is written, leases go back, dependents wake

Beside the road: `actions` is what people do to jobs and the queue, `queries` is what they are answered and never
writes, `maintenance` is what time does. At the root stand those who drive (`agent`: one turn after the other;
`service`: what start and stop mean) and what every room is given (`context`, `switches`, `access`, `epoch`,
`run_times`, `file_lock`, `node_lock`).

Whatever happens to a job is one committed transaction with its event. Stores, drivers and processes are reached through
`gpuq.ports` alone. May import: `gpuq.scheduler`, `gpuq.settings`, `gpuq.ports`, `gpuq.domain`, `gpuq.errors`.

What is to come has its place: `engine/calls` for functions that warm workers call (a call is a job, so it takes the
same road), `engine/outbox` for messages written with an event and delivered at least once, `engine/hub` for the one
listener that feeds all who wait for news, `gpuq/server/pages` for pages in a browser, and `gpuq/engines`, beside
`gpuq/stores`, for other ways to launch a supervisor, on another machine or through another scheduler.
"""
