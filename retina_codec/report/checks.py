"""The checks of the report: what was found, what it means, and whether it is good enough.

Why this file exists: the bars stand in one place, in words that a reader can dispute.
"""

from typing import Any

from retina_codec.report.words import number, percent

__all__ = ["checks_of"]


def checks_of(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """State each check with its value, its bar, and whether the bar is reached.

    Parameters
    ----------
    numbers : dict
        From `summarize`.

    Returns
    -------
    list of dict
        ``what``, ``value``, ``means``, ``bar`` in words, and ``passed``.
    """
    from retina_codec.figures.style import layer_name

    checks = []
    prediction = numbers["prediction"]
    if prediction and prediction["share"] is not None:
        checks.append(
            {
                "what": "Does the network predict the cells?",
                "value": f"r = {number(prediction['mean'])} of a possible "
                f"{number(prediction['ceiling'])} ({percent(prediction['share'])})",
                "means": "An explanation of the network speaks about the retina only as far as "
                "the network predicts it. The possible r follows from repeats.",
                "bar": "≥ 90 % of the noise ceiling",
                "passed": prediction["share"] >= 0.9,
            }
        )
    worst = max(numbers["layers"], key=lambda layer: layer["completeness_median"])
    checks.append(
        {
            "what": "Do contributions add up?",
            "value": f"median error at most {percent(worst['completeness_median'], 2)} "
            f"of the change ({layer_name(worst['name'])})",
            "means": "All contributions of a layer together must equal the change of the target; "
            "what is missing is error of the path integral.",
            "bar": "median < 1 % in every layer",
            "passed": worst["completeness_median"] < 0.01,
        }
    )
    for layer in numbers["layers"][:2]:
        checks.append(
            {
                "what": f"Do the modes of {layer_name(layer['name'])} rebuild contributions?",
                "value": f"R² = {number(layer['r2'])} with {layer['live']} modes, "
                f"{number(layer['mean_active'], 1)} active at a time",
                "means": f"On {layer['held_out']} times that the modes were not fitted to "
                f"(on the fitted ones R² = {number(layer['r2_fit'])}).",
                "bar": "R² ≥ 0.85 with at least 8 modes",
                "passed": layer["r2"] >= 0.85 and layer["live"] >= 8,
            }
        )
    agreement = numbers["agreement"]
    for name, value in (agreement["types"] if agreement else {}).items():
        if name in [layer["name"] for layer in numbers["layers"][:2]]:
            checks.append(
                {
                    "what": f"Do pathways of {layer_name(name)} match the cell types?",
                    "value": f"adjusted Rand index {number(value)}",
                    "means": "1 is the same grouping, 0 is chance. The types were not used to "
                    "find the pathways.",
                    "bar": "≥ 0.80",
                    "passed": value >= 0.8,
                }
            )
    return checks
