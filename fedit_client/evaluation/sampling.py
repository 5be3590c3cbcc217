"""How an answer is chosen among all that a model could say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 takes the likeliest token each time, else one is drawn by `seed`.

    Drawn is from the `top_k` likeliest tokens (0: from all), and from the fewest that together have the probability
    `top_p` (Holtzman et al. 2020). With `beams` above 1 so many answers are followed at once, and the likeliest whole
    one is given (beam search); it comes in one piece, for until its end another might be likelier.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    beams: int = 1
    seed: int = 0
