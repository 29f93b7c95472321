"""What every task shares: subjects, concepts, steering, activations, verbalizers, scoring, statistics, the runner."""
