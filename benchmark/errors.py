"""The one exception of a user's mistake: the command line prints it as a paragraph and exits with 2."""


class BadInput(ValueError):
    """Something that the user gave cannot be used.

    The message has three parts: what was given, what was expected, what to do.
    """
