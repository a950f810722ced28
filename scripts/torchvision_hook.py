"""Let `import torchvision` work beside a torch that its compiled operators were not built for.

torchvision's wheel carries operators compiled against one particular torch. Beside another build (a CPU
build, say) they do not load, and the import then fails on `operator torchvision::nms does not exist`, though
models and transforms need no such operator. Run with the Python of a virtual environment, this script tries
the import and, only where it fails for that reason, writes into that environment's site-packages

    _corank_torchvision.py    a finder that, at the first `import torchvision`, declares the missing schemas
    _corank_torchvision.pth   one line that installs the finder when Python starts

Starting Python stays cheap: torch is imported only when torchvision is. Deleting the two files undoes it.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

NAME = "_corank_torchvision"

HOOK = '''\
"""Declares torchvision's operator schemas before torchvision is imported; written by torchvision_hook.py."""

import sys

SCHEMAS = ("nms", "qnms")
ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class TorchvisionSchemas:
    """Finds nothing; acts once, when torchvision is first looked for, and leaves."""

    library = None

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            TorchvisionSchemas.library = torch.library.Library("torchvision", "FRAGMENT")
            for name in SCHEMAS:
                TorchvisionSchemas.library.define(name + ARGUMENTS)
        return None


def install():
    sys.meta_path.insert(0, TorchvisionSchemas())
'''


def import_error(module: str) -> str:
    """What a fresh Python prints when it cannot import `module`; empty where it can."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def main() -> int:
    if sys.prefix == sys.base_prefix:
        print("run this with the Python of a virtual environment: .venv/bin/python scripts/torchvision_hook.py")
        return 2
    site = Path(sysconfig.get_path("purelib"))
    module, start = site / f"{NAME}.py", site / f"{NAME}.pth"
    module.unlink(missing_ok=True)
    start.unlink(missing_ok=True)
    error = import_error("torchvision")
    if not error:
        print("torchvision imports as it is; nothing to do")
        return 0
    if "operator torchvision::" not in error:
        print(error, file=sys.stderr)
        print("torchvision cannot be imported for another reason than missing operator schemas", file=sys.stderr)
        return 1
    module.write_text(HOOK)
    start.write_text(f"import {NAME}; {NAME}.install()\n")
    error = import_error("torchvision")
    if error:
        print(error, file=sys.stderr)
        return 1
    print(f"torchvision imports, with the operator schemas that {module.name} declares")
    return 0


if __name__ == "__main__":
    sys.exit(main())
