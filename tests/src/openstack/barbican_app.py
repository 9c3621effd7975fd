"""Barbican, for gunicorn. It looks for its settings in $HOME/.barbican only."""
import os

from barbican.common import config  # noqa: F401
from paste import deploy

application = deploy.loadapp("config:" + os.environ["HOME"] + "/paste.ini", name="main")
