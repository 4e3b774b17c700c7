"""Metrics: how far an explanation can be trusted, as numbers beside those of maps that know nothing.

One module per family; ``registry`` knows the metrics by name, ``case`` is what a metric works with,
``controls`` are the two maps that every table holds, and ``evaluation`` is the table. What-ifs are asked
through ``variants.outcomes`` alone.
"""
