"""Fixtures of the recordings room."""

import pytest

from retina_codec.recordings.schema import make_recording
from tests.recordings.small_recording import make_parts


@pytest.fixture
def parts():
    return make_parts()


@pytest.fixture
def recording(parts):
    return make_recording(**parts)
