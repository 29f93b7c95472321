"""Natural Language Autoencoders in the released checkpoint contract: the sidecar, the checkpoint, the reconstructor."""
