"""What all studies share: flags -> Trial -> pool -> Estimator -> store -> tables -> charts."""
