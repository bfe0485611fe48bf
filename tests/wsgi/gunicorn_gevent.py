"""gunicorn's configuration for gevent with --preload: patch before the application is imported."""

import importlib


importlib.import_module("gevent.monkey").patch_all()  # by name: gevent has no types everywhere
