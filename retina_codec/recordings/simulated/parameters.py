"""Parameters of the simulated retina, with units and sources."""

from dataclasses import dataclass

__all__ = [
    "EXTRA_GANGLION_TYPES",
    "GAINS",
    "GANGLION_TYPES",
    "INTERNEURON_TYPES",
    "STRENGTHS",
    "THRESHOLDS",
    "RetinaParameters",
]

INTERNEURON_TYPES = (
    "ON fast bipolar",
    "ON slow bipolar",
    "OFF fast bipolar",
    "OFF slow bipolar",
    "wide-field amacrine",
    "crossover amacrine",
)
GANGLION_TYPES = ("OFF transient", "OFF sustained", "ON sustained", "object motion")
EXTRA_GANGLION_TYPES = ("ON transient",)  # only by ``ganglion_types``
# Signed strength of each interneuron type on each ganglion cell type (dimensionless).
STRENGTHS = {
    "OFF transient": {"OFF fast bipolar": 1.0, "wide-field amacrine": -0.6},
    "OFF sustained": {"OFF slow bipolar": 1.0, "crossover amacrine": -0.8},
    "ON sustained": {"ON slow bipolar": 1.0, "wide-field amacrine": -0.4},
    "object motion": {
        "ON fast bipolar": 0.8,
        "OFF fast bipolar": 0.8,
        "wide-field amacrine": -1.2,
    },
    "ON transient": {"ON fast bipolar": 1.0, "wide-field amacrine": -0.6},
}
# Hz per unit of drive, and drive at half threshold, per ganglion cell type.
GAINS = {
    "OFF transient": 250.0,
    "OFF sustained": 200.0,
    "ON sustained": 180.0,
    "object motion": 260.0,
    "ON transient": 250.0,
}
THRESHOLDS = {
    "OFF transient": 0.06,
    "OFF sustained": 0.08,
    "ON sustained": 0.08,
    "object motion": 0.06,
    "ON transient": 0.06,
}


@dataclass(frozen=True)
class RetinaParameters:
    """Numbers of the simulated retina, with units and where they come from.

    Parameters
    ----------
    background : float
        Grey level (0 to 255) that the photoreceptors are adapted to.
    receptor_fast, receptor_slow : float
        s, time constants of the biphasic photoreceptor filter (salamander cones peak near
        50 to 80 ms; Baylor et al. 1974; Rieke 2001).
    receptor_undershoot : float
        Weight of the slow against the fast filter.
    adaptation_strength, adaptation_time, adaptation_width : float
        Dimensionless; s; px: local contrast divides the response, ``1 / (1 + k * contrast)``
        (Baccus and Meister 2002; the fast component, some 100 ms).
    center_width, surround_width, surround_weight : float
        px, px, dimensionless: bipolar centre and horizontal-cell surround as Gaussians
        (50 µm px; salamander bipolar centres are about 100 µm wide; Dacey et al. 2000).
    bipolar_fast, bipolar_slow : float
        s: fast cells subtract a low-pass of this time constant (transient), slow cells
        are low-passed with it (sustained) (Awatramani and Slaughter 2000).
    fast_gain, slow_gain : float
        Dimensionless gain of the bipolar potential over the photoreceptors' contrast.
    bipolar_threshold : float
        Potential (contrast units) below which no transmitter is released.
    wide_field_width, wide_field_delay : float
        px, s: pooling of polyaxonal amacrine cells (Ölveczky et al. 2003; Baccus et al. 2008).
    crossover_width, crossover_delay : float
        px, s: pooling of ON amacrine cells that inhibit OFF cells (Werblin 2010).
    pooling_width : float
        px: Gaussian of the bipolar cells that feed one ganglion cell.
    weight_spread : float
        Log-normal spread of single connections.
    softness : float
        Drive units, width of the soft threshold of ganglion cells.
    refractory : float
        s (Berry and Meister 1998).
    """

    background: float = 110.0
    receptor_fast: float = 0.020
    receptor_slow: float = 0.060
    receptor_undershoot: float = 0.6
    adaptation_strength: float = 1.5
    adaptation_time: float = 0.120
    adaptation_width: float = 3.0
    center_width: float = 1.0
    surround_width: float = 4.0
    surround_weight: float = 0.7
    bipolar_fast: float = 0.050
    bipolar_slow: float = 0.060
    fast_gain: float = 8.0
    slow_gain: float = 4.0
    bipolar_threshold: float = 0.1
    wide_field_width: float = 7.0
    wide_field_delay: float = 0.020
    crossover_width: float = 3.0
    crossover_delay: float = 0.030
    pooling_width: float = 1.6
    weight_spread: float = 0.25
    softness: float = 0.04
    refractory: float = 0.003
