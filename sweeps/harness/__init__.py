"""Everything that the studies share: flags, training, the engine, tables, charts and claims."""
