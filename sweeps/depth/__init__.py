"""Steps to a target accuracy in networks of growing depth."""
