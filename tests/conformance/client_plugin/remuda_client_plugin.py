"""Puts `remuda.Client` in the place of `ipyparallel.Client` in the whole test process.

On PYTHONPATH, with the folder beside it that names its entry point, pytest loads it by itself. It fails the run if no client was an
accelerated one: then nothing would have been tested.
"""

import ipyparallel
import ipyparallel.client.client
import ipyparallel.cluster.cluster
import pytest

import remuda

made = 0


class Client(remuda.Client):
    def __init__(self, *args, **kwargs):
        global made
        super().__init__(*args, **kwargs)
        made += self.accelerated


# ipyparallel's own names for it. `view.client` must be one of these by type.
Client.__name__ = Client.__qualname__ = "Client"
for module in (ipyparallel, ipyparallel.client.client, ipyparallel.cluster.cluster):
    if hasattr(module, "Client"):
        module.Client = Client


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if session.testscollected and not session.config.option.collectonly and not made:
        session.exitstatus = 3


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"remuda.Client: {made} accelerated clients")
