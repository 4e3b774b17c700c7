"""Pictures that a part of the model answers to most: activation maximisation, DeepDream, feature inversion.

``canvas`` is what is optimised and the picture that it makes, ``shaking`` moves the picture a little at every
step, ``objectives`` is what shall grow, and ``stream`` the loop, step by step on the engine's thread.
"""
