"""The rules, pure: dataclasses and functions on them, standard library only, `now` always passed in."""
