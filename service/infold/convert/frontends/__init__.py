"""What training left on disk, turned into unfolded ONNX: one file a framework.

`formats` says what a source is, `isolated` runs the framework in a `child`
process, `exported` is what comes back, and `source` is the one door to all of
it. Frameworks are imported in `keras`, `tensorflow` and `pytorch` and nowhere
else.
"""
