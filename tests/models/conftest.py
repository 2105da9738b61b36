"""One proof a family, made once; nothing is ever downloaded."""

from __future__ import annotations

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


@pytest.fixture(scope="class")
def proof(request, tmp_path_factory):
    """All that is proved of the family of the test class."""
    from models.proof import Proof

    return Proof(request.cls.family, tmp_path_factory.mktemp("proof"))
