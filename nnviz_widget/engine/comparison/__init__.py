"""Two runs beside each other: which layer of one is which of the other, and how alike the two are.

``alignment`` pairs the layers, ``similarity`` measures a pair, ``stream`` makes the two runs and goes through
the pairs, ``result`` is what comes out. The facade is ``engine.comparing``.
"""
