"""The device's runtime: streams of one person, on one thread, without PyTorch.

`packed` is a model as arrays and a few numbers, which `convert` makes of a
trained one. `recogniser` streams it: features, routing, the chosen branch
alone, search. Matrix products are NumPy's, a frame costs little beside them.
"""
