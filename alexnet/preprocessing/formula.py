from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    name: str = ""


SMALL = Spec()
LARGE = Spec()
