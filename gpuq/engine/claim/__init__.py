"""The plan comes true, and stays true.

In: a plan. Out: claimed attempts, ready to launch. After it a start is both leased and written, or neither: leases
come first, all or none, then one guarded transaction under the node's fence. Leases are taken and kept here and
nowhere else. May import: `outcome`, because an end and the start that it makes room for are one transaction,
`snapshot`, `attempt`, `hot`, and the engine's root modules.
"""
