"""What the engine tells the hot queue, and whether it may believe it.

In: committed changes. Out: nothing; a hint that does not arrive is found again by maintenance. After it the hot queue
holds what SQL holds, or everybody knows that it may not. Scores stand in line under one rule for the whole installation
(`ranking`). May import: the engine's root modules.
"""
