"""The experiments of "Steered LLM Activations are Non-Surjective" (arXiv 2604.09839 v2), one module for each."""
