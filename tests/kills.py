"""A kill before any of the events that change files, in this process."""

import os
from pathlib import Path

import torch


class Killed(BaseException):
    """Stands for the end of the process."""


def watch_files(monkeypatch):
    """Count what changes files. From the event of number `at` on nothing changes them any more, as after a kill."""
    state = {"at": None, "count": 0}

    def watched(function):
        def call(*args, **kwargs):
            state["count"] += 1
            if state["at"] is not None and state["count"] >= state["at"]:
                raise Killed
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (torch, "save")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    return state
