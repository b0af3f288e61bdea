"""What `fold` would do to a model, as data: `plan` and its `Decision`s."""

from kerasbn.tools.folding import Decision, fold, plan

__all__ = ["Decision", "fold", "plan"]
