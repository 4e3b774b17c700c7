"""The package as a user gets it: from a wheel, without Node and without this repository."""
