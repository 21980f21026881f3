"""A database that is not the one that this home worked with: recognised, taken on, and made to agree with the folders.

In: what the home remembers, what the database says of itself, and the folders of attempts. Out: a refusal that says
what to do, or a database whose numbers go on and whose jobs do not run twice. After it nothing of what lives here is
unknown. May import: the rooms of the road; only the processes' start and `gpuq db` import it.
"""
