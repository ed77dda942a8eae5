"""Sections 4 and 5: how a net is trained, stopped, resumed and evaluated.

loop.py         `train`: the training loop from top to bottom
step.py         a net with its optimiser, and one step of it: eager, or a CUDA graph
optimizer.py    the paper's update rule, and when its rates drop
distributed.py  the processes that train one net together: how they start, meet, agree and stop
evaluate.py     exact error counts, probabilities and features of whole splits; means over nets, nearest neighbours
checkpoint.py   where a training stands, on disk: whole, verified, never executed
precision.py    fp32, bf16 or tf32; threads; kernels
"""
