"""What the process has imported of which children are copies (forking); nothing else imports this.

No thread of Python's runs after these imports, so that a copy lacks none.
"""

import atexit
import os

import typer  # noqa: F401 (the command line is imported again in each, as its main module)

import flows.retrain  # noqa: F401

# it does nothing that is to be ended, and to take torch and its compiler apart takes seconds
atexit.register(os._exit, 0)
