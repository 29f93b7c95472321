"""The exception of a user's mistake: the command line prints it as a paragraph and exits with 2."""


class BadInput(ValueError):
    """Something that the user gave cannot be used.

    The message has three parts: what was given, what was expected, what to do.
    """


class NoRoom(BadInput):
    """The machine has no room for the work; nothing is wrong with what was given."""
