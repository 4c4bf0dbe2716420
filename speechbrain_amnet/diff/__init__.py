"""Neural diffs: a deployed model becomes the next one by a small file.

Source: Amortized Neural Networks' sister paper, Learning a Neural Diff for
Speech Models, Interspeech 2021, https://arxiv.org/abs/2108.01561
"""
