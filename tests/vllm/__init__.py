"""A real vLLM without a GPU, and the tests of the adapter against it: run.py is the way in.

A package, unlike the other tests: these modules import each other, under pytest and without it.
"""
