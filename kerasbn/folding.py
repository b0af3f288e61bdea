"""`plan` lists as data what `fold` would do to a model, with one `Decision` per batch norm."""

from kerasbn.tools.folding import Decision, fold, plan

__all__ = ["Decision", "fold", "plan"]
