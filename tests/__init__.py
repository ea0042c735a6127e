"""A package only so that `from tests.conftest import trials` never meets another folder named tests on the path."""
