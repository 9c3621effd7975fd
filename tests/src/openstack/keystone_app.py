"""Keystone, for gunicorn."""
import os
import sys

sys.argv = ["keystone", "--config-file", os.environ["HOME"] + "/keystone.conf"]
from keystone.server import wsgi  # noqa: E402

application = wsgi.initialize_public_application()
