"""An NLA on natural and steered activations: what a run will take, and its tables."""
