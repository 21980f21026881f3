"""What every statement needs: connections, transactions, rows as values, and the statements themselves.

In: values of the domain. Out: rows as values, or an error of `gpuq.errors` instead of the driver's. What is committed
here is on the disk. May import: `schema`, `gpuq.ports`, `gpuq.domain`, SQLAlchemy.
"""
