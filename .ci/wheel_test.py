"""Install the wheel alone, in a fresh environment outside the clone, and run the demo.

python .ci/wheel_test.py dist constraints.txt
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from zipfile import ZipFile

HELD = ("py.typed", ".pyi", ".html", ".css", "insilico/weights.safetensors", "insilico/config.json")


def main() -> int:
    """Return 0 when the demo wrote its results and its report."""
    folder, constraints = (Path(word).resolve() for word in sys.argv[1:3])
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        files = archive.namelist()
    lacking = [end for end in HELD if not any(name.endswith(end) for name in files)]
    if lacking:
        print(f"{wheel.name} must hold {', '.join(lacking)}; see package-data in pyproject.toml")
        return 1
    with tempfile.TemporaryDirectory(prefix="retina-codec-wheel-") as place:
        home = Path(place).resolve()
        venv.create(home / "env", with_pip=True)
        programs = home / "env" / ("Scripts" if os.name == "nt" else "bin")
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

        def run(*command: str | Path) -> None:
            print("$", *command, flush=True)
            subprocess.run([str(word) for word in command], cwd=home, env=env, check=True)

        run(programs / "python", "-m", "pip", "install", "-q", "-c", constraints, wheel)
        where = "import retina_codec as rc; print(rc.__version__, rc.__file__)"
        run(programs / "python", "-c", where)
        run(programs / "retina-codec", "demo", "--out", home / "demo")
        missing = [n for n in ("results.nc", "report.html") if not (home / "demo" / n).exists()]
    if missing:
        print(f"the demo must write results.nc and report.html; {', '.join(missing)} is missing")
        return 1
    print(f"{wheel.name} alone runs the demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
