"""What gpuq tells about itself: its log, and its numbers for Prometheus.

In: log records, and numbers as plain mappings. Out: text. May import: `gpuq.domain`, and prometheus-client at the first
scrape.
"""
