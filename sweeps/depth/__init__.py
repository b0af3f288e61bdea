"""How many steps networks of growing depth need."""
