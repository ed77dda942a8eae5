"""Questions of our own, which the paper does not ask but its readers do."""

from alexnet.config import Schedule
from alexnet.experiments.answers import gain
from alexnet.experiments.declare import QUESTIONS, Experiment, base
from alexnet.paper.claims import Claim, Value

ON_2012 = {"dataset": "ilsvrc2012", "split": "val", "views": "ten"}
OF_150 = {**ON_2012, "bound": "at least", "notes_source": "layer-params-150.cfg, layer-params-145.cfg:182"}

for question in (
    Claim("q-bf16", "4, 5", "question", "Does the net train in bf16 as it does in fp32?"),
    Claim(
        "q-text",
        "3, 4, 5",
        "question",
        "Does the text suffice, or does the net of the 2012 code, which differs in some twenty details, make fewer errors?",
        (Value("top-1 gain", 0.0, "points", bound="at least", **ON_2012),),
    ),
    Claim(
        "q-exchange",
        "3.2",
        "question",
        "What do the columns gain by exchanging their maps? In one net of the 2012 run notes they meet at the end only.",
        tuple(Value(f"top-{k} gain", 0.0, "points", notes2012=points, **OF_150) for k, points in ((1, 1.16), (5, 1.12))),
    ),
):
    QUESTIONS[question.id] = question

PRECISION = Experiment("q-bf16", {p: base(precision=p, epochs=5, scales=("small", "paper")) for p in ("fp32", "bf16")})
TEXT = Experiment(
    claim="q-text",
    arms={"source2012": base(), "paper": base(preset="paper")},
    answers={"top-1 gain": gain("paper", "source2012", top=1)},
)
EXCHANGE = Experiment(
    claim="q-exchange",
    arms={"exchange": base(), "no exchange": base("no-exchange")},
    answers={f"top-{k} gain": gain("no exchange", "exchange", top=k) for k in (1, 5)},
)
# Trainings of the whole schedule of 2012, longer than those of the ablations.
LONG = Experiment(
    claim="s3.5-architecture",
    arms={
        "source2012": base(epochs=30, schedule=Schedule(), scales=("small",)),
        "source2012, full width": base(epochs=30, schedule=Schedule(), width=1.0, scales=("small",)),
        "paper": base(preset="paper", epochs=12, scales=("small",)),
    },
)

EXPERIMENTS = (EXCHANGE, TEXT, PRECISION, LONG)
