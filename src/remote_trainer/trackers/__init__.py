"""Trackers show a run elsewhere: trackio, wandb, TensorBoard. One module per tracker.

A tracker runs in a process of its own, which reads the run folder. So it cannot block, fail or
change the run, whatever its library does.
"""
