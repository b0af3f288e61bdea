"""Chooses Keras's backend before Keras is imported: TensorFlow, unless KERAS_BACKEND is set."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
