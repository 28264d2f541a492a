r"""Train the network of the simulated retina and write its folder with a card.

    python models/train_insilico.py --out retina_codec/data/models/insilico
    python models/train_insilico.py --retina-seed 2 --stimulus-seed 1002 --out retina_2 \
        --types "OFF transient=5" "ON sustained=4" "ON transient=4"

The train movie (40 min) and the test movie on which the card's numbers are measured are not those
of the demo: the same retina, another movie.
"""

import argparse
import shlex
import sys

import torch

import retina_codec as rc
from retina_codec.analysis import network_card, prediction_quality

LOCAL = """\
- The kernels of layers 2 and 3 together reach 10 px from a cell's centre; the wide-field amacrine
  cells of the simulation reach farther, which the object motion cells feel most.
"""
WIDE = """\
- The wide field of layer 2 is one weighted mean over the whole frame; the wide-field amacrine cells
  of the simulation weigh near places more.
"""
DOUBTS = """
## Doubts

- The retina is simulated; nothing here is evidence about a real one.
{reach}- The training time was measured on two shared CPU cores.
- Adaptation that began more than 400 ms ago cannot be seen in a window of 40 frames.
"""


def counted(text: str) -> tuple[str, int]:
    """Read ``"ON sustained=4"``."""
    kind, _, count = text.partition("=")
    return kind, int(count)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, fit, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="retina_codec/data/models/insilico")
    parser.add_argument("--retina-seed", type=int, default=0)
    parser.add_argument("--stimulus-seed", type=int, default=1000)
    parser.add_argument(
        "--types",
        nargs="+",
        type=counted,
        metavar="TYPE=CELLS",
        help="types of ganglion cells and how many of each, instead of four of each of the four",
    )
    parser.add_argument("--train-duration", type=float, default=2400.0, help="s")
    parser.add_argument("--test-duration", type=float, default=60.0, help="s")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--windows-per-epoch", type=int, default=60_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--cycles", type=int, default=2, help="of the learning rate's schedule")
    parser.add_argument("--surround", action="store_true", help="a wide field in layer 2")
    parser.add_argument("--resume", default=None, help="file that keeps the training's state")
    parser.add_argument("--overwrite", action="store_true")
    chosen = parser.parse_args(arguments)
    recording, _ = rc.simulate_retina(
        chosen.retina_seed,
        stimulus_seed=chosen.stimulus_seed,
        ganglion_types=dict(chosen.types) if chosen.types else None,
        train_duration=chosen.train_duration,
        test_duration=chosen.test_duration,
        repeats=chosen.repeats,
    )
    network = rc.fit_network(
        recording,
        noise=0.0,
        settings=rc.networks.TrainingSettings(
            epochs=chosen.epochs,
            windows_per_epoch=chosen.windows_per_epoch,
            batch_size=chosen.batch_size,
            cycles=chosen.cycles,
            patience=16,
            validation=0.05,
        ),
        resume=chosen.resume,
        surround=chosen.surround,
    )
    quality = prediction_quality(network, recording)
    title = f"insilico: the network of the simulated retina (seed {chosen.retina_seed})"
    text = network_card(network, quality, title=title)
    command = shlex.join(["python", "models/train_insilico.py", *(arguments or sys.argv[1:])])
    text += f"\nMade by `{command}` on CPU, PyTorch {torch.__version__}.\n"
    text += DOUBTS.format(reach=WIDE if chosen.surround else LOCAL)
    rc.save_network(network, chosen.out, card=text, overwrite=chosen.overwrite)
    share = float((quality["pearson"] / quality["noise_ceiling"]).mean())
    print(f"mean r / ceiling: {share:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
